"""Checkpoints in memory for tests, and the conformance suite of every `CheckpointStore`."""
# ruff: noqa: D102 - the names of the tests are the sentences

from collections.abc import Callable

import pytest

from ml_assets.checkpoints import KEPT, StoredCheckpoint
from ml_assets.errors import StoreError
from ml_assets.interfaces import Checkpoint, CheckpointStore

KEY, OTHER = "shop/returns/models/forest/2024-02/aa", "shop/returns/models/forest/2024-02/bb"


class FakeCheckpoints:
    """A `CheckpointStore` in memory.

    Attributes:
        content: Key → file name → content; a test may change it, as a broken disk could.
        saved: (key, step) of every state that was written, oldest first.
        max_bytes: Largest state that is stored.
    """

    def __init__(self, *, max_bytes: int = 10**8) -> None:
        self.content: dict[str, dict[str, bytes]] = {}
        self.saved: list[tuple[str, int]] = []
        self.max_bytes = max_bytes

    def open(self, key: str) -> StoredCheckpoint:
        """Return the checkpoint under a key."""
        return StoredCheckpoint(key, _Files(self, key), max_bytes=self.max_bytes)


class _Files:
    def __init__(self, store: FakeCheckpoints, key: str) -> None:
        self._store, self._key = store, key

    @property
    def _folder(self) -> dict[str, bytes]:
        return self._store.content.get(self._key, {})

    def names(self) -> list[str]:
        return list(self._folder)

    def read(self, name: str) -> bytes:
        if name not in self._folder:
            raise FileNotFoundError(name)
        return self._folder[name]

    def publish(self, name: str, content: bytes) -> None:
        self._store.content.setdefault(self._key, {})[name] = content
        self._store.saved.append((self._key, int(name[:12])))

    def remove(self, name: str) -> None:
        key, _, plain = name.rpartition("/")
        key = f"{self._key.rpartition('/')[0]}/{key[3:]}" if key else self._key
        self._store.content.get(key, {}).pop(plain, None)
        if not self._store.content.get(key, True):
            del self._store.content[key]

    def neighbours(self) -> list[str]:
        parent = self._key.rpartition("/")[0]
        beside = [k for k in self._store.content if k.rpartition("/")[0] == parent and k != self._key]
        return [f"../{key.rpartition('/')[2]}/{name}" for key in beside for name in self._store.content[key]]


Damage = Callable[[str, int], None]
"""Flips a byte of a key's stored state after a step."""


class CheckpointSuite:
    """Inherit with fixtures `store` (an empty `CheckpointStore` of at most 100,000 bytes a state) and `damage`."""

    @pytest.fixture
    def checkpoint(self, store: CheckpointStore) -> Checkpoint:
        return store.open(KEY)

    def test_nothing_is_loaded_before_anything_was_saved(self, checkpoint: Checkpoint) -> None:
        assert checkpoint.load() is None
        checkpoint.clear()
        assert not checkpoint.problems

    def test_what_was_saved_is_loaded_by_whoever_opens_the_key(
        self, store: CheckpointStore, checkpoint: Checkpoint
    ) -> None:
        files = {"weights": bytes(range(256)), "empty": b"", "a name/with parts.json": b"{}"}
        checkpoint.save(7, files)

        assert store.open(KEY).load() == (7, files)
        assert store.open(OTHER).load() is None

    def test_the_newest_state_is_loaded_and_older_ones_are_dropped(
        self, store: CheckpointStore, checkpoint: Checkpoint, damage: Damage
    ) -> None:
        for step in range(0, 120, 9):
            checkpoint.save(step, {"state": b"%d" % step})
        assert checkpoint.load() == (117, {"state": b"117"})

        damage(KEY, 117)
        assert store.open(KEY).load() == (108, {"state": b"108"})
        damage(KEY, 108)
        assert KEPT == 2
        assert store.open(KEY).load() is None

    def test_damage_is_told(self, store: CheckpointStore, checkpoint: Checkpoint, damage: Damage) -> None:
        checkpoint.save(1, {"state": b"one"})
        checkpoint.save(2, {"state": b"two"})
        damage(KEY, 2)

        again = store.open(KEY)
        assert again.load() == (1, {"state": b"one"})
        (problem,) = again.problems
        assert KEY in problem
        assert "damaged" in problem

    def test_a_training_that_went_back_drops_what_came_later(self, checkpoint: Checkpoint) -> None:
        for step in (10, 20, 30, 15):
            checkpoint.save(step, {"state": b"%d" % step})

        assert checkpoint.load() == (15, {"state": b"15"})

    def test_saving_a_step_again_replaces_it(self, checkpoint: Checkpoint) -> None:
        checkpoint.save(10, {"state": b"first"})
        checkpoint.save(10, {"state": b"second"})

        assert checkpoint.load() == (10, {"state": b"second"})

    def test_clear_removes_one_training_and_no_other(self, store: CheckpointStore, checkpoint: Checkpoint) -> None:
        checkpoint.save(1, {"state": b"one"})
        store.open(OTHER).save(2, {"state": b"two"})
        checkpoint.clear()

        assert checkpoint.load() is None
        assert store.open(OTHER).load() == (2, {"state": b"two"})

    def test_a_state_that_is_too_large_is_refused_and_the_older_one_stays(self, checkpoint: Checkpoint) -> None:
        checkpoint.save(1, {"state": b"one"})

        with pytest.raises(StoreError, match=r"after step 2 of .* has 100,\d{3} bytes; at most 100,000 are stored"):
            checkpoint.save(2, {"state": bytes(100_000)})
        assert checkpoint.load() == (1, {"state": b"one"})

    def test_a_step_below_zero_is_refused(self, checkpoint: Checkpoint) -> None:
        with pytest.raises(StoreError, match="step is -1"):
            checkpoint.save(-1, {})
