"""What is asked of checkpoints: a training that was killed goes on from the last whole one."""

from collections.abc import Mapping, Sequence
from typing import Protocol


class Checkpoint(Protocol):
    """The state of one training on its way, kept outside of its process; whoever is killed, it is whole or not there.

    One process trains at a time. What is stored may be read by programs of other people: no pickle.
    """

    def save(self, step: int, files: Mapping[str, bytes]) -> None:
        """Keep the state after so many steps, and drop older ones but the one before.

        Args:
            step: Rounds or epochs done, from 0. Later ones that are stored are dropped: training went back.
            files: Name → content; names are the caller's.

        Raises:
            StoreError: If it is larger than the store takes, or cannot be written. What was stored still is.
        """
        ...

    def load(self) -> tuple[int, dict[str, bytes]] | None:
        """Return (step, files) of the newest whole state, or None; damaged ones are left out and told in `problems`.

        Raises:
            StoreError: If the store cannot be reached.
        """
        ...

    def clear(self) -> None:
        """Remove everything of this training, once what it learned is stored elsewhere.

        Raises:
            StoreError: If the store refuses.
        """
        ...

    @property
    def problems(self) -> Sequence[str]:
        """Return what was found damaged so far, a sentence each."""
        ...


class CheckpointStore(Protocol):
    """Where checkpoints are kept."""

    def open(self, key: str) -> Checkpoint:
        """Return the checkpoint under a key, without input or output.

        Args:
            key: Path with `/` between its parts, as `ml_assets.checkpoints.checkpoint_key` makes it. Whatever
                decides the training's course must be in it: under one key there is one training.
        """
        ...
