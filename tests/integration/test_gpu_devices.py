"""Which GPU of the machine a step is given, on a real Dagster home whose pool is changed while steps run."""

from itertools import combinations

import dagster as dg

from ml_assets.compute import GPUS_POOL, GPUS_TAG
from ml_assets.executors.weighted_pools import WeightedPools
from tests.integration.conftest import ON_BOTH_STORAGES

pytestmark = ON_BOTH_STORAGES


def _run(instance: dg.DagsterInstance) -> dg.DagsterRun:
    @dg.job
    def anything() -> None: ...

    return instance.create_run_for_job(anything)


def _pools(instance: dg.DagsterInstance, run: dg.DagsterRun, *, gpus: int = 4, each: int = 1) -> WeightedPools:
    return WeightedPools(instance, run, tags_of=lambda _: {GPUS_TAG: str(each)}, gpus=gpus)


def _claim(context: WeightedPools, *steps: str) -> list[bool]:
    context._looks.update(dict.fromkeys(context._pending_claims, 0.0))  # let the time between two looks pass
    return [context.claim(GPUS_POOL, step) for step in steps]


def _limit(instance: dg.DagsterInstance, *limits: int) -> None:
    for limit in limits:
        instance.event_log_storage.set_concurrency_slots(GPUS_POOL, limit)


def test_a_gpu_that_a_step_holds_is_given_to_no_other_whatever_the_pools_limit_was_meanwhile(
    instance: dg.DagsterInstance,
) -> None:
    with _pools(instance, _run(instance)) as first, _pools(instance, _run(instance)) as second:
        assert _claim(first, "a", "b", "c") == [True, True, True]
        held = {key: first.devices(key) for key in ("b", "c")}
        assert held == {"b": (1,), "c": (2,)}
        first.free_step("a")
        _limit(instance, 1, 4)
        assert _claim(second, "d", "e", "f") == [True, True, False]  # four GPUs in all
        held |= {key: second.devices(key) for key in ("d", "e")}
        assert sorted(held.values()) == [(0,), (1,), (2,), (3,)]
        assert {key: first.devices(key) for key in ("b", "c")} == {"b": (1,), "c": (2,)}

        first.free_step("b")
        assert _claim(second, "f") == [True]
        assert second.devices("f") == (1,)


def test_steps_of_several_gpus_never_overlap_while_the_limit_goes_up_and_down(instance: dg.DagsterInstance) -> None:
    with _pools(instance, _run(instance), each=2) as context:
        running: list[str] = []
        for number in range(12):
            _limit(instance, 2 + number % 3)
            if number % 3 == 1 and running:
                context.free_step(running.pop(0))
            if _claim(context, f"step_{number}") == [True]:
                running.append(f"step_{number}")
            else:
                context.forget(f"step_{number}")
            held = [set(context.devices(key)) for key in running]
            assert all(len(places) == 2 for places in held)
            assert all(not (one & other) for one, other in combinations(held, 2)), (number, held)
        assert running


def test_a_new_worker_of_a_run_finds_the_gpus_that_its_steps_hold(instance: dg.DagsterInstance) -> None:
    run = _run(instance)
    former = _pools(instance, run)
    assert _claim(former, "a", "b") == [True, True]
    _limit(instance, 1, 4)
    with _pools(instance, run) as context:
        assert _claim(context, "b", "a") == [True, True]
        assert (context.devices("a"), context.devices("b")) == ((0,), (1,))


def test_a_step_of_which_nothing_is_written_down_holds_the_gpus_of_its_slots(instance: dg.DagsterInstance) -> None:
    with _pools(instance, _run(instance)) as earlier, _pools(instance, _run(instance), each=2) as context:
        assert _claim(earlier, "a", "b") == [True, True]
        earlier.free_step("a")
        instance.run_storage.set_cursor_values({"ml_assets/gpu_devices": "[]"})  # as a claim of an earlier version
        assert _claim(context, "c") == [True]
        assert context.devices("c") == (0, 2)


def test_a_pool_with_more_slots_than_there_are_gpus_shares_them_evenly(instance: dg.DagsterInstance) -> None:
    _limit(instance, 4)
    with _pools(instance, _run(instance), gpus=2) as context:
        assert _claim(context, "a", "b", "c", "d") == [True] * 4
        assert [context.devices(key) for key in "abcd"] == [(0,), (1,), (0,), (1,)]
        context.free_step("b")
        assert _claim(context, "e") == [True]
        assert context.devices("e") == (1,)
