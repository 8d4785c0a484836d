"""PolicyFiles: the policy tree of one folder or URL, read anew at each call."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from ml_assets.errors import PolicyError
from ml_assets.interfaces import ComputeRules, EffectivePolicy, Person, PipelinePath
from ml_assets.policy.folder import read_compute_rules, read_tree
from ml_assets.policy.merge import effective, require_sound
from ml_assets.policy.tree import PolicyTree
from resources.atomic_files import local_folder


@dataclass(frozen=True)
class PolicyFiles:
    """A `PolicySource` over a folder of organization.yaml, people.yaml, compute.yaml, domains/, teams/ and pipelines/.

    Nothing is kept between calls: the files are small, and a decision must see the policy of its own time.
    Making one does no input or output.

    Attributes:
        url: A folder, or a URL such as "s3://bucket/policies". Passwords belong in `storage_options`.
        trial_people: A further local file of people, who try things out on this machine; it may be absent.
        storage_options: Arguments for the fsspec file system, such as keys; never shown.
    """

    url: str
    trial_people: str | Path | None = field(default=None, kw_only=True, repr=False)
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False, kw_only=True)
    _folder: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if re.search(r"://[^/]*:[^/]*@", self.url):
            raise PolicyError("The policy folder's URL holds a password; pass it in storage_options instead.")
        if not self.url or self.url.startswith("~"):
            raise PolicyError(f"The policy folder is {self.url!r}; expected the path of a folder, or a URL.")
        # Absolute at once: a later change of the working folder must not lead to another policy.
        object.__setattr__(self, "_folder", str(local_folder(self.url) or self.url))
        if self.trial_people is not None:
            object.__setattr__(self, "trial_people", Path(self.trial_people).absolute())

    def tree(self) -> PolicyTree:
        """Read the files now; what is wrong in them is in the tree's `problems`."""
        return read_tree(
            self._folder, trial_people=self.trial_people, storage_options=self.storage_options, shown_as=self.url
        )

    def effective(self, pipeline: PipelinePath, at: datetime | None = None) -> EffectivePolicy:
        """Read the files now and return what holds for a pipeline at an instant (now, when None).

        Raises:
            PolicyError: If the folder or a file cannot be read, or the tree has problems: all are told at once.
        """
        return effective(self.tree(), pipeline, at)

    def people(self) -> dict[str, Person]:
        """Read the files now and return who may decide, by name; raises PolicyError as `effective` does."""
        tree = self.tree()
        require_sound(tree)
        return dict(tree.people)

    def compute(self) -> ComputeRules:
        """Read the rules of compute now, from their one file.

        Raises:
            PolicyError: If the file cannot be read or is wrong.
        """
        return read_compute_rules(self._folder, storage_options=self.storage_options, shown_as=self.url)
