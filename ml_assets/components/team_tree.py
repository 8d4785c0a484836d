"""A team's component tree, which knows where to read the compute profiles that its pipelines may name."""

from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Self

import dagster as dg

from ml_assets.interfaces import ComputeRules


class TeamTree(dg.ComponentTree):
    """Dagster's component tree of one team's `defs`, with the rules of compute for its components."""

    @classmethod
    def of(cls, defs: ModuleType, project_root: Path, rules: Callable[[], ComputeRules]) -> Self:
        """Return the tree of a `defs` package.

        Args:
            defs: The package.
            project_root: The repository's root.
            rules: Reads the rules of compute.
        """
        tree = cls(defs_module=defs, project_root=project_root)
        vars(tree)["_rules"] = rules  # a tree is a frozen record of Dagster's, whose fields are Dagster's too
        return tree

    @property
    def rules(self) -> Callable[[], ComputeRules]:
        """Return what reads the rules of compute."""
        return vars(self)["_rules"]


def rules_of(tree: dg.ComponentTree) -> Callable[[], ComputeRules]:
    """Return what reads the rules of compute for a component; a tree that Dagster made itself has none."""
    return tree.rules if isinstance(tree, TeamTree) else ComputeRules


def read_once(read: Callable[[], ComputeRules]) -> Callable[[], ComputeRules]:
    """Return a function that reads when it is first called and remembers what it read."""
    return cache(read)
