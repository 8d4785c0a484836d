"""Policies: a tree of files with typed settings, from the organization down to one pipeline."""

from ml_assets.policy.catalogue import CATALOGUE, Definition
from ml_assets.policy.folder import read_tree
from ml_assets.policy.merge import effective, loosenings, policy_digest
from ml_assets.policy.tree import Entry, PolicyFile, PolicyTree

__all__ = [
    "CATALOGUE",
    "Definition",
    "Entry",
    "PolicyFile",
    "PolicyTree",
    "effective",
    "loosenings",
    "policy_digest",
    "read_tree",
]
