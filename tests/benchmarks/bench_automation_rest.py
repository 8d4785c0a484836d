"""CPU of automation at rest: `python -m tests.benchmarks.bench_automation_rest [--pipelines 10 100]`.

Pipelines of 12 months × 2 groups with all features and row indexes made, on Dagster's storage in SQLite and a ledger
in SQLite; nothing new happens. Each sensor is evaluated as the code location's server does it, again and again, and
its CPU seconds for one tick are divided by its interval: the share of one core that it takes for ever. What the
daemon and the transport add to a tick does not depend on the number of pipelines and is not in here.
"""
# ruff: noqa: T201 - a benchmark prints its table

import argparse
import logging
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg

from ml_assets.assets.previews import quiet_previews
from ml_assets.components.team import pipelines_of
from ml_assets.retraining.pauses import pause
from ml_assets.spec import AutomationSpec, PartitionsSpec
from ml_assets.spec.data import GroupSpec
from ml_assets.stages.step import Services
from resources.ledger import SqlLedger
from sensors import approvals, conditions, retraining
from tests.components.shop import FEATURES, services, shop

MONTHS = [f"2024-{month:02}" for month in range(1, 13)]
TICKS = 5


def location(folder: Path, count: int, world: Services) -> dg.Definitions:
    """Return a code location of `count` pipelines."""
    (folder / "features.py").write_text(FEATURES, encoding="utf-8")
    partitions = PartitionsSpec(
        every="month", start="2024-01", end="2025-01", group=GroupSpec(column="country", values=("DE", "FR"))
    )
    with quiet_previews():
        made = [
            shop(name=f"p{i:03}", partitions=partitions, automation=AutomationSpec(retraining=True)).definitions(folder)
            for i in range(count)
        ]
    assets = [asset for definitions in made for asset in definitions.assets or []]
    return conditions.attach_conditions(dg.Definitions(assets=assets), world)


def fill(instance: dg.DagsterInstance, count: int) -> None:
    """Tell Dagster that everything the conditions look at has been made."""
    for i in range(count):
        path = ["shop", f"p{i:03}"]
        for month in MONTHS:
            for group in ("DE", "FR"):
                instance.report_runless_asset_event(
                    dg.AssetMaterialization([*path, "features"], partition=f"{group}|{month}")
                )
            instance.report_runless_asset_event(dg.AssetMaterialization([*path, "row_index"], partition=month))


def cpu_of(act: Callable[[], None]) -> float:
    """Return the least CPU seconds of some calls: the machine has other work."""
    costs = []
    for _ in range(TICKS):
        before = time.process_time()
        act()
        costs.append(time.process_time() - before)
    return min(costs)


def measure(count: int) -> dict[str, tuple[float, float]]:
    """Return each sensor's CPU seconds of a tick, and its interval in seconds."""
    with tempfile.TemporaryDirectory() as folder, dg.DagsterInstance.local_temp(folder) as instance:
        root = Path(folder)
        ledger = SqlLedger(f"sqlite:///{root / 'ledger.db'}")
        world = replace(services(root), ledger=ledger)
        pause(ledger, ("shop", "*"), by="bench", reason="At rest", now=datetime.now(UTC))
        assets = location(root, count, world).assets
        own = pipelines_of(dg.Definitions(assets=assets))
        sensors = [
            approvals.build_approvals_sensor(own),
            retraining.build_retraining_sensor(own),
            conditions.build_conditions_sensor(own, world.ledger.mark),
        ]
        resources = dict(vars(world))
        repository = dg.Definitions(assets=assets, sensors=sensors, resources=resources).get_repository_def()
        fill(instance, count)
        found = {}
        for sensor in sensors:
            cursor: list[str | None] = [None]

            def tick(sensor: dg.SensorDefinition = sensor, cursor: list[str | None] = cursor) -> None:
                with dg.build_sensor_context(
                    instance=instance,
                    resources=resources if sensor.required_resource_keys else {},
                    cursor=cursor[0],
                    repository_def=repository,
                ) as context:
                    cursor[0] = sensor.evaluate_tick(context).cursor

            for _ in range(3):  # the first looks at everything, the next at what the first recorded
                tick()
            found[sensor.name] = (cpu_of(tick), float(sensor.minimum_interval_seconds or 30))
            print(f"  {sensor.name}: cursor of {len(cursor[0] or ''):,} bytes")
        return found


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pipelines", type=int, nargs="+", default=[10, 100])
    logging.disable(logging.INFO)
    for count in parser.parse_args().pipelines:
        print(f"{count} pipelines")
        found = measure(count)
        for name, (cpu, interval) in found.items():
            print(f"  {name:<12} {cpu * 1000:8.1f} ms a tick, each {interval:g} s: {cpu / interval:7.3%} of a core")
        print(f"  together {sum(cpu / interval for cpu, interval in found.values()):.3%} of a core")


if __name__ == "__main__":
    main()
