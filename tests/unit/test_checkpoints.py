"""Checkpoints: the fake conforms, the file format notices every flipped byte, and keys bind a state to its input."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.checkpoints import STALE_SECONDS, NoCheckpoint, StoredCheckpoint, checkpoint_key, pack, unpack
from ml_assets.testing.checkpoints import KEY, OTHER, CheckpointSuite, Damage, FakeCheckpoints, _Files


class TestFakeCheckpoints(CheckpointSuite):
    @pytest.fixture
    def store(self) -> FakeCheckpoints:
        return FakeCheckpoints(max_bytes=100_000)

    @pytest.fixture
    def damage(self, store: FakeCheckpoints) -> Damage:
        def flip(key: str, step: int) -> None:
            name = next(n for n in store.content[key] if int(n[:12]) == step)
            content = bytearray(store.content[key][name])
            content[-1] ^= 1
            store.content[key][name] = bytes(content)

        return flip


@given(st.integers(0, 10**9), st.dictionaries(st.text(max_size=20), st.binary(max_size=50), max_size=4))
def test_a_state_comes_back_as_it_was_packed(step: int, files: dict[str, bytes]) -> None:
    assert unpack(KEY, pack(KEY, step, files)) == (step, files)


def test_every_flipped_byte_and_every_cut_is_noticed() -> None:
    content = pack(KEY, 3, {"weights": bytes(40), "more": b"x"})

    for position in range(len(content)):
        changed = bytearray(content)
        changed[position] ^= 0x10
        with pytest.raises(ValueError, match="damaged"):
            unpack(KEY, bytes(changed))
        with pytest.raises(ValueError, match="damaged"):
            unpack(KEY, content[:position])


def test_a_state_of_another_key_is_not_used() -> None:
    store = FakeCheckpoints()
    store.open(OTHER).save(4, {"weights": b"1"})
    store.content[KEY] = dict(store.content[OTHER])
    checkpoint = store.open(KEY)

    assert checkpoint.load() is None
    assert f"it belongs to {OTHER}" in checkpoint.problems[0]


def test_the_key_changes_with_whatever_decides_the_training() -> None:
    asset = ("shop", "returns", "models", "forest")
    content = {"training_set": "a" * 64, "params": {"max_iter": 5}, "seed": 1, "code": "b" * 64}
    changed = [{**content, name: "other"} for name in content]
    keys = {
        checkpoint_key(asset, "2024-02", content),
        checkpoint_key(asset, "2024-03", content),
        checkpoint_key((*asset[:3], "boosting"), "2024-02", content),
        *(checkpoint_key(asset, "2024-02", c) for c in changed),
    }

    assert len(keys) == 7
    assert checkpoint_key(asset, "2024-02", dict(reversed(content.items()))) in keys


def test_clear_also_removes_what_was_given_up_beside_it_long_ago() -> None:
    store, now = FakeCheckpoints(), 1_700_000_000.0

    def at(key: str, seconds: float) -> StoredCheckpoint:
        return StoredCheckpoint(key, _Files(store, key), now=lambda: now + seconds)

    parent = KEY.rpartition("/")[0]
    at(f"{parent}/old", 0).save(1, {})
    at(f"{parent}/recent", 10).save(1, {})
    at("shop/returns/models/boosting/2024-02/elsewhere", 0).save(1, {})
    at(KEY, STALE_SECONDS + 5).save(1, {})
    at(KEY, STALE_SECONDS + 5).clear()

    assert sorted(store.content) == ["shop/returns/models/boosting/2024-02/elsewhere", f"{parent}/recent"]


def test_no_checkpoint_keeps_nothing() -> None:
    checkpoint = NoCheckpoint()
    checkpoint.save(1, {"a": b"b"})

    assert checkpoint.load() is None
    checkpoint.clear()
    assert not checkpoint.problems
