"""Slots of the pool of GPUs on real Dagster homes: a step takes all it asks for or none, and nobody starves."""

import json
import multiprocessing
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ml_assets.compute import GPUS_POOL, GPUS_TAG, MODELS_POOL
from ml_assets.errors import MlAssetsError
from ml_assets.executors.pool_limits import give_default_limit, refresh_default_limits, tables
from ml_assets.executors.weighted_pools import FORGET_SECONDS, WeightedPools
from tests.integration.conftest import ON_BOTH_STORAGES

pytestmark = ON_BOTH_STORAGES

FORK = multiprocessing.get_context("fork")


def run(instance: dg.DagsterInstance, priority: int = 0) -> dg.DagsterRun:
    @dg.job
    def anything() -> None: ...

    return instance.create_run_for_job(anything, tags={"dagster/priority": str(priority)})


def pools(
    instance: dg.DagsterInstance, weights: Mapping[str, int], *, gpus: int | None = 4, priority: int = 0
) -> WeightedPools:
    return WeightedPools(
        instance,
        run(instance, priority),
        tags_of=lambda key: {GPUS_TAG: str(weights[key])} if weights[key] else {},
        gpus=gpus,
    )


def claimed(instance: dg.DagsterInstance, pool: str = GPUS_POOL) -> int:
    return len(instance.event_log_storage.get_concurrency_info(pool).claimed_slots)


def look_again(context: WeightedPools) -> None:
    """Let the time between two looks pass."""
    context._looks.clear()
    context._looks.update(dict.fromkeys(context._pending_claims, 0.0))


def test_a_step_takes_as_many_slots_as_it_asks_for_gpus_and_frees_them_all(instance: dg.DagsterInstance) -> None:
    with pools(instance, {"three": 3, "one": 1}) as context:
        assert context.claim(GPUS_POOL, "three")
        assert context.claim(GPUS_POOL, "one")
        assert claimed(instance) == 4
        context.free_step("three")
        assert claimed(instance) == 1


def test_a_step_that_does_not_fit_takes_nothing(instance: dg.DagsterInstance) -> None:
    with pools(instance, {"two": 2}) as first, pools(instance, {"three": 3}) as second:
        assert first.claim(GPUS_POOL, "two")
        assert not second.claim(GPUS_POOL, "three")
        assert claimed(instance) == 2
        first.free_step("two")
        look_again(second)
        assert second.claim(GPUS_POOL, "three")
        assert claimed(instance) == 3


def test_two_steps_never_hold_half_of_what_each_needs(instance: dg.DagsterInstance) -> None:
    with pools(instance, {"a": 3}) as first, pools(instance, {"b": 3}) as second:
        got = [first.claim(GPUS_POOL, "a"), second.claim(GPUS_POOL, "b")]

        assert got == [True, False]
        assert claimed(instance) == 3


def test_a_wide_step_is_not_starved_by_narrow_ones_behind_it(instance: dg.DagsterInstance) -> None:
    with (
        pools(instance, {"small": 1}) as running,
        pools(instance, {"wide": 4}) as wide,
        pools(instance, {"late": 1}) as late,
    ):
        assert running.claim(GPUS_POOL, "small")
        assert not wide.claim(GPUS_POOL, "wide")
        assert not late.claim(GPUS_POOL, "late")  # three slots are free, and the wide step is the next one
        running.free_step("small")
        look_again(late)
        assert not late.claim(GPUS_POOL, "late")
        look_again(wide)
        assert wide.claim(GPUS_POOL, "wide")


def test_a_run_of_higher_priority_goes_first(instance: dg.DagsterInstance) -> None:
    with (
        pools(instance, {"held": 4}) as running,
        pools(instance, {"low": 2}) as low,
        pools(instance, {"high": 4}, priority=5) as high,
    ):
        assert running.claim(GPUS_POOL, "held")
        assert not low.claim(GPUS_POOL, "low")
        assert not high.claim(GPUS_POOL, "high")
        running.free_step("held")
        look_again(low)
        look_again(high)
        assert not low.claim(GPUS_POOL, "low")
        assert high.claim(GPUS_POOL, "high")


def test_a_step_that_gives_up_waiting_lets_the_next_one_go(instance: dg.DagsterInstance) -> None:
    with pools(instance, {"held": 2}) as running, pools(instance, {"late": 1}) as late:
        assert running.claim(GPUS_POOL, "held")
        with pools(instance, {"wide": 4}) as wide:
            assert not wide.claim(GPUS_POOL, "wide")
            assert not late.claim(GPUS_POOL, "late")
        look_again(late)
        assert late.claim(GPUS_POOL, "late")


def test_a_step_that_could_not_start_anyhow_holds_nobody_back(instance: dg.DagsterInstance) -> None:
    with (
        pools(instance, {"held": 3}) as running,
        pools(instance, {"wide": 4}) as wide,
        pools(instance, {"late": 1}) as late,
    ):
        assert running.claim(GPUS_POOL, "held")
        assert not wide.claim(GPUS_POOL, "wide")
        assert not late.claim(GPUS_POOL, "late")
        assert wide.pending_claim_steps() == ["wide"]
        wide._asked["wide"] -= FORGET_SECONDS + 1  # its run has given its cores to another step since
        assert wide.pending_claim_steps() == []
        look_again(late)
        assert late.claim(GPUS_POOL, "late")


def test_a_claim_that_is_asked_again_is_the_same_one(instance: dg.DagsterInstance) -> None:
    with pools(instance, {"two": 2}) as context:
        assert context.claim(GPUS_POOL, "two")
        again = WeightedPools(instance, _run_of(context, instance), tags_of=lambda _: {GPUS_TAG: "2"}, gpus=4)
        assert again.claim(GPUS_POOL, "two")
        assert claimed(instance) == 2


def _run_of(context: WeightedPools, instance: dg.DagsterInstance) -> dg.DagsterRun:
    found = instance.get_run_by_id(context._run_id)
    assert found is not None
    return found


def test_each_step_is_told_which_gpus_it_holds(instance: dg.DagsterInstance) -> None:
    with pools(instance, {"a": 1, "b": 2, "c": 2}) as context:
        assert context.claim(GPUS_POOL, "a")
        assert context.claim(GPUS_POOL, "b")
        assert (context.devices("a"), context.devices("b"), context.devices("c")) == ((0,), (1, 2), ())
        context.free_step("a")
        assert context.claim(GPUS_POOL, "c")
        assert context.devices("c") == (0, 3)


def test_a_step_that_the_machine_has_too_few_gpus_for_takes_a_slot_of_the_models(
    instance: dg.DagsterInstance,
) -> None:
    instance.event_log_storage.set_concurrency_slots(MODELS_POOL, 1)
    with pools(instance, {"big": 2, "other": 2}, gpus=1) as context:
        assert context.claim(GPUS_POOL, "big")
        assert not context.claim(GPUS_POOL, "other")
        assert (claimed(instance), claimed(instance, MODELS_POOL)) == (0, 1)


def test_where_steps_may_have_pods_only_a_limit_that_somebody_gave_bounds_them(instance: dg.DagsterInstance) -> None:
    with pools(instance, {"a": 8, "b": 8}, gpus=None) as context:
        assert context.claim(GPUS_POOL, "a")
        instance.event_log_storage.set_concurrency_slots(GPUS_POOL, 8)
        context._sync_pools()
        assert context.claim(GPUS_POOL, "b")
        assert claimed(instance) == 8


def test_a_step_wider_than_the_pool_is_an_error_and_holds_nobody_back(instance: dg.DagsterInstance) -> None:
    instance.event_log_storage.set_concurrency_slots(GPUS_POOL, 2)
    with pools(instance, {"wide": 4, "small": 1}, gpus=None) as context:
        with pytest.raises(MlAssetsError, match="wide asks for 4 GPUs; the pool 'gpus' has 2 in all"):
            context.claim(GPUS_POOL, "wide")
        assert not context.has_pending_claims()
        assert context.claim(GPUS_POOL, "small")


def test_a_pool_that_somebody_closed_has_steps_wait(instance: dg.DagsterInstance) -> None:
    instance.event_log_storage.set_concurrency_slots(GPUS_POOL, 0)
    with pools(instance, {"two": 2}) as context:
        assert not context.claim(GPUS_POOL, "two")
        instance.event_log_storage.set_concurrency_slots(GPUS_POOL, 2)
        look_again(context)
        assert context.claim(GPUS_POOL, "two")


def test_steps_wait_for_those_that_run_when_the_limit_of_the_last_pool_is_deleted(
    instance: dg.DagsterInstance,
) -> None:
    assert instance.event_log_storage.get_concurrency_keys() == set()
    with pools(instance, {"two": 2}) as running, pools(instance, {"four": 4}) as context:
        assert running.claim(GPUS_POOL, "two")
        instance.event_log_storage.delete_concurrency_limit(GPUS_POOL)
        assert not context.claim(GPUS_POOL, "four")
        assert (claimed(instance), instance.event_log_storage.get_concurrency_info(GPUS_POOL).limit) == (2, 4)
        running.free_step("two")
        look_again(context)
        assert context.claim(GPUS_POOL, "four")
        assert claimed(instance) == 4


@pytest.mark.parametrize("pool", [GPUS_POOL, MODELS_POOL])
def test_a_slot_that_stayed_when_the_last_limit_was_deleted_keeps_nobody_waiting(
    instance: dg.DagsterInstance, pool: str
) -> None:
    storage: Any = instance.event_log_storage
    left = {"concurrency_key": pool, "run_id": None, "step_key": None, "deleted": True}
    with storage.index_transaction() as connection:
        connection.execute(tables().ConcurrencySlotsTable.insert().values([left]))
    refresh_default_limits(instance)
    with pools(instance, {"step": 1}) as context:
        assert context.claim(pool, "step")
        assert claimed(instance, pool) == 1


def test_a_step_that_has_its_slots_keeps_them_when_the_pool_gets_smaller_than_it(instance: dg.DagsterInstance) -> None:
    with pools(instance, {"two": 2}, gpus=None) as context:
        instance.event_log_storage.set_concurrency_slots(GPUS_POOL, 2)
        assert context.claim(GPUS_POOL, "two")
        instance.event_log_storage.set_concurrency_slots(GPUS_POOL, 1)
        again = WeightedPools(instance, _run_of(context, instance), tags_of=lambda _: {GPUS_TAG: "2"}, gpus=None)
        assert again.claim(GPUS_POOL, "two")
        again.free_step("two")
        assert claimed(instance) == 0


def test_other_pools_are_as_they_were(instance: dg.DagsterInstance) -> None:
    instance.event_log_storage.set_concurrency_slots(MODELS_POOL, 1)
    with pools(instance, {"a": 3, "b": 3}) as context:
        assert context.claim(MODELS_POOL, "a")
        assert not context.claim(MODELS_POOL, "b")
        assert claimed(instance, MODELS_POOL) == 1


def test_in_other_pools_each_free_slot_has_its_step_and_none_is_awaited_for_another(
    instance: dg.DagsterInstance,
) -> None:
    instance.event_log_storage.set_concurrency_slots(MODELS_POOL, 2)
    with pools(instance, {"a": 0, "b": 0}) as first, pools(instance, {"c": 0, "d": 0, "e": 0}) as second:
        assert [first.claim(MODELS_POOL, key) for key in ("a", "b")] == [True, True]
        assert [second.claim(MODELS_POOL, key) for key in ("c", "d", "e")] == [False, False, False]
        for key in ("a", "b"):
            first.free_step(key)
        look_again(second)
        assert [second.claim(MODELS_POOL, key) for key in ("e", "d", "c")] == [False, True, True]


def test_in_other_pools_a_step_that_waits_looks_less_and_less_often(instance: dg.DagsterInstance) -> None:
    instance.event_log_storage.set_concurrency_slots(MODELS_POOL, 0)  # nothing starts until somebody raises it
    with pools(instance, {"a": 0}) as context:
        waits = []  # (least, most): when exactly it looked is not known
        for _ in range(30):
            look_again(context)
            before = time.monotonic()
            assert not context.claim(MODELS_POOL, "a")
            waits.append((context._looks["a"] - time.monotonic(), context._looks["a"] - before))
        assert waits[0][0] < 5
        assert waits[0][1] >= 1.1
        assert waits[-1][0] < 20
        assert waits[-1][1] >= 15
        instance.event_log_storage.set_concurrency_slots(MODELS_POOL, 1)
        look_again(context)
        assert context.claim(MODELS_POOL, "a")


def test_a_default_limit_that_was_changed_holds_from_the_next_claim_on(instance: dg.DagsterInstance) -> None:
    give_default_limit(instance.event_log_storage, MODELS_POOL, 5)
    give_default_limit(instance.event_log_storage, "other", 5)
    with pools(instance, dict.fromkeys("abc", 0)) as context:
        assert [context.claim(MODELS_POOL, key) for key in "abc"] == [True, True, False]

    refresh_default_limits(instance)
    found = {pool.name: (pool.limit, pool.from_default) for pool in instance.event_log_storage.get_pool_limits()}
    assert found == {MODELS_POOL: (2, True), "other": (2, True)}


def test_a_limit_that_somebody_gave_is_not_replaced_by_the_default(instance: dg.DagsterInstance) -> None:
    instance.event_log_storage.set_concurrency_slots(MODELS_POOL, 3)
    give_default_limit(instance.event_log_storage, MODELS_POOL, 2)
    refresh_default_limits(instance)
    info = instance.event_log_storage.get_concurrency_info(MODELS_POOL)
    assert (info.limit, info.slot_count) == (3, 3)


def test_a_step_that_goes_on_without_its_slot_holds_nobody_back(instance: dg.DagsterInstance) -> None:
    with pools(instance, {"held": 4}) as running, pools(instance, {"adopted": 1}) as taken_over:
        assert running.claim(GPUS_POOL, "held")
        assert not taken_over.claim(GPUS_POOL, "adopted")
        taken_over.forget("adopted")
        running.free_step("held")
        with pools(instance, {"next": 4}) as context:
            assert context.claim(GPUS_POOL, "next")


def test_any_priority_that_a_tag_may_hold_is_one(instance: dg.DagsterInstance) -> None:
    with pools(instance, {"low": 4}) as low, pools(instance, {"high": 1}, priority=10**12) as high:
        assert high.claim(GPUS_POOL, "high")
        assert not low.claim(GPUS_POOL, "low")


# --- several processes at once


def _claim_at_once(home: Path, run_id: str, rounds: int, barrier: Any, journal: Path) -> None:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        found = instance.get_run_by_id(run_id)
        assert found is not None
        for number in range(rounds):
            barrier.wait(300)
            with WeightedPools(instance, found, tags_of=lambda _: {}, gpus=None) as context:
                _note(journal, [number, context.claim(f"pool_{number // 2}", f"step_{number}")])
                barrier.wait(300)
                context.free_step(f"step_{number}")


@pytest.mark.slow
def test_of_steps_that_claim_at_the_same_moment_as_many_start_as_the_pool_has_slots(home: Path, tmp_path: Path) -> None:
    """Of the two rounds in a pool, the first one makes its limit and the second one finds it."""
    journal, rounds, workers = tmp_path / "claims", 10, 4
    with dg.DagsterInstance.from_config(str(home)) as instance:
        runs = [run(instance).run_id for _ in range(workers)]
    barrier = FORK.Barrier(workers)
    processes = [FORK.Process(target=_claim_at_once, args=(home, one, rounds, barrier, journal)) for one in runs]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
        assert process.exitcode == 0

    claims = _spans(journal)
    assert len(claims) == rounds * workers
    assert [sum(got for number, got in claims if number == one) for one in range(rounds)] == [2] * rounds


def _compete(home: Path, run_id: str, weight: int, rounds: int, journal: Path) -> None:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        found = instance.get_run_by_id(run_id)
        assert found is not None
        with WeightedPools(instance, found, tags_of=lambda _: {GPUS_TAG: str(weight)}, gpus=4) as context:
            for number in range(rounds):
                key = f"step_{number}"
                while not context.claim(GPUS_POOL, key):
                    time.sleep(0.01)
                    look_again(context)
                started = time.monotonic()
                time.sleep(0.02)
                _note(journal, [started, time.monotonic(), list(context.devices(key))])
                context.free_step(key)


def _note(journal: Path, value: Any) -> None:
    with journal.open("a") as file:
        file.write(json.dumps(value) + "\n")


def _spans(journal: Path) -> list[Any]:
    return [json.loads(line) for line in journal.read_text().splitlines()]


@pytest.mark.slow
def test_processes_never_hold_more_than_there_is_and_no_gpu_twice(home: Path, tmp_path: Path) -> None:
    journal, rounds, weights = tmp_path / "spans", 6, (1, 2, 3, 4)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        runs = [run(instance).run_id for _ in weights]
    processes = [
        FORK.Process(target=_compete, args=(home, run_id, weight, rounds, journal))
        for run_id, weight in zip(runs, weights, strict=True)
    ]
    for process in processes:
        process.start()
    for process in processes:
        process.join(300)
        assert process.exitcode == 0

    spans = _spans(journal)
    assert len(spans) == rounds * len(weights)
    for started, _, mine in spans:
        held = [gpu for s, e, gpus in spans if s <= started < e for gpu in gpus]
        assert len(held) == len(set(held)) <= 4, held
        assert set(mine) <= set(range(4))


def _hold_for_ever(home: Path, run_id: str, ready: Any) -> None:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        found = instance.get_run_by_id(run_id)
        assert found is not None
        instance.report_engine_event("begins", found)
        with WeightedPools(instance, found, tags_of=lambda _: {GPUS_TAG: "3"}, gpus=4) as context:
            assert context.claim(GPUS_POOL, "holder")
            ready.set()
            time.sleep(300)


@pytest.mark.slow
def test_what_a_killed_run_held_is_freed_when_the_run_is_ended(home: Path) -> None:
    with dg.DagsterInstance.from_config(str(home)) as instance:
        dead = run(instance)
        ready = FORK.Event()
        holder = FORK.Process(target=_hold_for_ever, args=(home, dead.run_id, ready))
        holder.start()
        assert ready.wait(120)
        assert holder.pid is not None
        os.kill(holder.pid, signal.SIGKILL)
        holder.join(120)
        assert claimed(instance) == 3

        instance.report_run_failed(dead)
        assert dead.run_id in instance.event_log_storage.get_concurrency_run_ids()  # so that monitoring frees them
        instance.event_log_storage.free_concurrency_slots_for_run(dead.run_id)

        assert claimed(instance) == 0
        with pools(instance, {"next": 4}) as context:
            assert context.claim(GPUS_POOL, "next")
