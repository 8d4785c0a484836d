"""A process that dies at any step of a promotion leaves the old or the new champion, and the next run repairs it."""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from ml_assets.sources import LandingZone
from ml_assets.stages import promotion
from ml_assets.stages.champions import latest_by_partition
from ml_assets.stages.step import Services, Step
from ml_assets.stages.trust import trusted_champion
from ml_assets.testing.alerts import FakeAlerts
from ml_assets.testing.checkpoints import FakeCheckpoints
from ml_assets.testing.inbox import FakeInbox
from ml_assets.testing.notifier import FakeNotifier
from ml_assets.testing.serving_check import FakeServingCheck
from ml_assets.testing.studies import FakeStudies
from ml_assets.testing.validator import FakeValidator
from resources.data_store import ParquetDataStore
from resources.dossiers import DossierFiles
from resources.ledger import SqlLedger
from resources.model_registry import MlflowRegistry
from tests.components.shop import Shop, land_orders, policy

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1200),  # some thirty promotions
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),  # MLflow on SQLAlchemy 2.1
]

PATH, NAME, MONTH = ("shop", "returns"), "shop.returns", "2024-03"
CHANGING = {
    "data_store": ("write_document",),
    "ledger": ("exclusive", "record_decision"),
    "model_registry": ("register", "set_alias", "delete_alias", "set_version_tags"),
    "dossiers": ("write",),
}
VIEW_CHANGING = ("record_decision", "append")


def real_world(folder: Path) -> Services:
    registry = MlflowRegistry(f"sqlite:///{folder}/mlflow/mlflow.db", str(folder / "mlflow" / "artifacts"))
    return Services(
        data_store=ParquetDataStore(str(folder / "data")),
        ledger=SqlLedger(f"sqlite:///{folder}/ledger.db"),
        model_registry=registry,
        validator=FakeValidator(),
        policy=policy(),
        landing=LandingZone(root=str(folder / "landing")),
        serving_check=FakeServingCheck(registry),
        dossiers=DossierFiles(str(folder / "dossiers")),
        inbox=FakeInbox(),
        alerts=FakeAlerts(),
        notifier=FakeNotifier(),
        checkpoints=FakeCheckpoints(),
        studies=FakeStudies(),
    )


class Doomed:
    """Counts the calls that change something, before and after each, and kills the process at one of them."""

    def __init__(self, at: int, said: int) -> None:
        self.at, self.count, self._said = at, 0, said

    def point(self, name: str) -> None:
        self.count += 1
        if self.count == self.at:
            os.write(self._said, name.encode())
            os.kill(os.getpid(), signal.SIGKILL)

    def wrap(self, target: Any, names: tuple[str, ...]) -> Any:
        return _Wrapped(target, names, self)


class _Wrapped:
    def __init__(self, target: Any, names: tuple[str, ...], doomed: Doomed) -> None:
        self._target, self._names, self._doomed = target, names, doomed

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._target, name)
        if name not in self._names:
            return found
        if name == "exclusive":
            return lambda *args: _exclusive(found(*args), self._doomed)
        return _killing(found, name, self._doomed)


@contextmanager
def _exclusive(manager: Any, doomed: Doomed) -> Iterator[Any]:
    doomed.point("before a transaction")
    with manager as view:
        yield _Wrapped(view, VIEW_CHANGING, doomed)
        doomed.point("before a commit")
    doomed.point("after a commit")


def _killing(call: Callable[..., Any], name: str, doomed: Doomed) -> Callable[..., Any]:
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        doomed.point(f"before {name}")
        result = call(*args, **kwargs)
        doomed.point(f"after {name}")
        return result

    return wrapped


def promote(shop: Shop, at: int = 0) -> tuple[int, str]:
    """Run the promotion in a forked process that dies at a point; return its exit code and the point's name."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            os.close(reader)
            doomed = Doomed(at, writer)
            world = {f.name: getattr(shop.world, f.name) for f in fields(Services)}
            for name, calls in CHANGING.items():
                world[name] = doomed.wrap(world[name], calls)
            step = Step(
                pipeline=shop.pipeline, services=Services(**world), partition=MONTH, run_id="r", launched_by="l"
            )
            promotion.run(step)
            code = 0
        except BaseException as error:  # noqa: BLE001 - a forked test process must not run the tests' own end
            sys.stderr.write(repr(error))
        finally:
            os._exit(code)
    os.close(writer)
    said = b"".join(iter(lambda: os.read(reader, 100), b"")).decode()
    os.close(reader)
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status), said


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A champion of February, and a candidate of March that was evaluated and not decided on."""
    folder = tmp_path_factory.mktemp("state")
    land_orders(folder / "landing", ("2024-01", "2024-02", MONTH))
    with dg.DagsterInstance.ephemeral() as instance:
        shop = Shop(folder, real_world(folder), instance)
        for month in ("2024-01", "2024-02", MONTH):
            shop.data(month)
            assert shop.run("row_index", partition=month).success
        assert shop.models("2024-02").success
        variants = [f"models/{name}" for name in shop.component.variants]
        assert shop.run("training_set", *variants, "candidate", "evaluation", partition=MONTH).success
    shutil.copytree(folder, folder.with_name("before"))
    return shop


def restored(shop: Shop) -> None:
    """Put the state back as it was before the promotion, at the same place: MLflow's addresses are absolute."""
    folder = Path(shop.world.landing.root).parent
    shutil.rmtree(folder)
    shutil.copytree(folder.with_name("before"), folder)


def test_killed_at_every_step(prepared: Shop) -> None:
    points: list[str] = []
    while True:
        restored(prepared)
        code, point = promote(prepared, at=len(points) + 1)
        world = replace(prepared.world)
        alias = world.model_registry.version_by_alias(NAME, "champion")
        assert alias is not None, f"no champion after a kill {point}"
        assert alias.version in ("1", "2"), point
        trusted = trusted_champion(world, PATH, None).champion
        assert trusted is not None, f"nothing is believed after a kill {point}"
        assert trusted.model_version in ("1", "2"), point
        if code == 0:
            break
        assert code == -signal.SIGKILL, point
        points.append(point)

        assert promote(prepared)[0] == 0, f"the next run after a kill {point}"

        decisions = world.ledger.decisions(PATH)
        assert [d.outcome for d in decisions if d.partition == MONTH] == ["promoted"], point
        assert latest_by_partition(decisions)[MONTH].model_version == "2"
        repaired = world.model_registry.version_by_alias(NAME, "champion")
        assert repaired is not None
        assert repaired.version == "2", point
        assert world.ledger.verify(PATH) == [], point
    assert len(points) > 15
    assert {"before set_alias", "after set_alias", "before a commit", "after record_decision"} <= set(points)
