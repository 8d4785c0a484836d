"""A small pipeline on made-up orders, with fakes for the world: what component tests materialize."""

import copy
import threading
from dataclasses import fields, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd

from ml_assets.components import TrainingPipeline
from ml_assets.interfaces import ComputeRules, Person, PublicKey
from ml_assets.reading.pipeline_file import check_pipeline
from ml_assets.sources import LandingZone
from ml_assets.spec import (
    BusinessSpec,
    ColumnSpec,
    EvaluationSpec,
    EventTimeSpec,
    ExpectationSpec,
    ExpectationsSpec,
    FeaturesSpec,
    GroupSpec,
    LabelSpec,
    PartitionsSpec,
    PipelineSpec,
    PreprocessingSpec,
    SelectionSpec,
    SourceSpec,
    TrainingSpec,
    VariantSpec,
)
from ml_assets.stages.step import LAUNCHED_BY_TAG, Services
from ml_assets.testing.alerts import FakeAlerts
from ml_assets.testing.checkpoints import FakeCheckpoints
from ml_assets.testing.data_store import FakeDataStore
from ml_assets.testing.dossiers import FakeDossierStore
from ml_assets.testing.inbox import FakeInbox
from ml_assets.testing.ledger import FakeLedger
from ml_assets.testing.model_registry import FakeModelRegistry
from ml_assets.testing.notifier import FakeNotifier
from ml_assets.testing.policy_source import FakePolicySource
from ml_assets.testing.serving_check import FakeServingCheck
from ml_assets.testing.studies import FakeStudies
from ml_assets.testing.validator import FakeValidator

MONTHS = ("2024-01", "2024-02", "2024-03")
FEATURES = '''
"""Features of an order."""

import pandas as pd


def sent_back(returned: pd.Series) -> pd.Series:
    """The label."""
    return returned.astype("float64")


def outcome(returned: pd.Series, amount: pd.Series) -> pd.Series:
    """A label with three classes."""
    kind = returned.map({0.0: "kept", 1.0: "returned"})
    return kind.where(amount < 80, "disputed").where(returned.notna())


def outcome_code(returned: pd.Series, amount: pd.Series) -> pd.Series:
    """The same classes as whole numbers."""
    return outcome(returned, amount).map({"kept": 0, "returned": 1, "disputed": 2}).astype("Int64")


def spend(returned: pd.Series, amount: pd.Series) -> pd.Series:
    """A label that is a number."""
    return (amount * (1 - returned)).astype("float64")


def per_item(amount: pd.Series, items: pd.Series) -> pd.Series:
    """EUR per item."""
    return amount / items
'''


def land_orders(landing: Path, months: tuple[str, ...] = MONTHS, *, per_day: int = 30, signal: float = 1.5) -> None:
    """Write one CSV a month and country; the chance of a return rises with the amount by `signal`."""
    (landing / "shop").mkdir(parents=True, exist_ok=True)
    for month in months:
        for country in ("DE", "FR"):
            orders(month, country, per_day=per_day, signal=signal).to_csv(
                landing / "shop" / f"{month}_{country}.csv", index=False
            )


def orders(month: str, country: str, *, per_day: int, signal: float) -> pd.DataFrame:
    """Return a month's made-up orders of one country."""
    rng = np.random.default_rng(int(month.replace("-", "")) * 2 + (country == "FR"))
    days = pd.period_range(f"{month}-01", periods=pd.Period(month).days_in_month, freq="D")
    when = np.repeat(days.to_timestamp().to_numpy(), per_day) + rng.integers(0, 86_400, len(days) * per_day).astype(
        "timedelta64[s]"
    )
    amount = rng.uniform(5, 100, when.size).round(2)
    chance = 1 / (1 + np.exp(-signal * (amount - 50) / 20))
    return pd.DataFrame(
        {
            "order_id": [f"{month}-{country}-{i}" for i in range(when.size)],
            "ordered_at": when,
            "amount": amount,
            "items": rng.integers(1, 6, when.size),
            "country": country,
            "returned": (rng.uniform(size=when.size) < chance).astype(int),
        }
    )


def shop(**changes: Any) -> TrainingPipeline:
    """Return the pipeline, with some of its parts replaced."""
    parts: dict[str, Any] = {
        "name": "returns",
        "team": "shop",
        "owners": ("team:shop",),
        "description": "Will an order be sent back?",
        "business": BusinessSpec(unit="Sales", product="Checkout", data_classification="internal"),
        "source": SourceSpec(
            url="shop/{time}_{group}.csv",
            event_time=EventTimeSpec(column="ordered_at"),
            row_id=("order_id",),
            columns={
                "order_id": ColumnSpec(type="string", nullable=False),
                "ordered_at": ColumnSpec(type="timestamp", nullable=False),
                "amount": ColumnSpec(type="float64", nullable=False),
                "items": ColumnSpec(type="int32", nullable=False),
                "country": ColumnSpec(type="string", nullable=False),
                "returned": ColumnSpec(type="float64", known="after_event"),
            },
        ),
        "partitions": PartitionsSpec(
            every="month",
            start="2024-01",
            end="2024-07",
            group=GroupSpec(column="country", values=("DE", "FR")),
        ),
        "expectations": ExpectationsSpec(
            raw_data=(
                ExpectationSpec(
                    type="expect_column_values_to_be_between",
                    kwargs={"column": "amount", "min_value": 0, "max_value": 1000},
                ),
            )
        ),
        "features": FeaturesSpec(columns=("amount", "per_item", "country")),
        "label": LabelSpec.model_validate({"column": "sent_back", "task": "binary", "known_after": "1d"}),
        "training": TrainingSpec(min_rows=50, seed=7),
        "variants": {
            "logistic": VariantSpec(
                estimator="sklearn.linear_model.LogisticRegression",
                preprocessing=PreprocessingSpec(numeric="standardize", categorical="one_hot"),
            ),
            "boosting": VariantSpec(
                estimator="sklearn.ensemble.HistGradientBoostingClassifier", params={"max_iter": 20}
            ),
        },
        "selection": SelectionSpec(metric="roc_auc"),
        "evaluation": EvaluationSpec(metrics=("roc_auc", "log_loss"), slices=("country",), replicates=200),
        "gates": ("roc_auc.floor",),
    }
    return TrainingPipeline(**{**parts, **changes})


def services(landing: Path, **thresholds: float) -> Services:
    """Return a world of fakes around a landing zone."""
    registry = FakeModelRegistry()
    return Services(
        data_store=FakeDataStore(),
        ledger=FakeLedger(),
        model_registry=registry,
        validator=FakeValidator(),
        policy=policy(**thresholds),
        landing=LandingZone(root=str(landing)),
        serving_check=FakeServingCheck(registry),
        dossiers=FakeDossierStore(),
        inbox=FakeInbox(),
        alerts=FakeAlerts(),
        notifier=FakeNotifier(),
        checkpoints=FakeCheckpoints(),
        studies=FakeStudies(),
    )


def policy(compute: ComputeRules | None = None, **settings: Any) -> FakePolicySource:
    """Return a policy for the shop: what is given, over lenient settings and without approvals of first models."""
    lenient = {
        "roc_auc.floor": 0.55,
        "roc_auc.margin": 0.02,
        "roc_auc.material_band": 0.2,
        "comparison.replicates": 200,
        "material.first_model": False,
    }
    return FakePolicySource({**lenient, **settings}, people=PEOPLE, compute=compute)


class TestSigner:
    """A person of the tests with a key made from the name."""

    __test__ = False

    def __init__(self, person: str) -> None:
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        self.person = person
        self._private = Ed25519PrivateKey.from_private_bytes(person.encode().ljust(32, b"."))
        self.key = self._private.public_key().public_bytes_raw().hex()

    def sign(self, payload: bytes) -> bytes:
        """Return the signature."""
        return self._private.sign(payload)


def reviewer(name: str, **changes: Any) -> Person:
    """Return a model reviewer of all teams, whose key `TestSigner(name)` signs with."""
    given = Person(
        name=name,
        roles=("model_reviewer",),
        teams=("*",),
        keys=(PublicKey(value=TestSigner(name).key, effective_from=datetime(2013, 1, 1, tzinfo=UTC)),),
        file="policies/people.yaml",
        line=3,
    )
    return replace(given, **changes)


PEOPLE = {name: reviewer(name) for name in ("anna", "olga")}


class Shop:
    """The pipeline loaded into an in-process Dagster instance."""

    def __init__(self, folder: Path, world: Services, instance: dg.DagsterInstance, **changes: Any) -> None:
        (folder / "features.py").write_text(FEATURES, encoding="utf-8")
        self.world, self.instance = world, instance
        self.component = shop(**changes)
        self.definitions = self.component.definitions(folder, world.policy.compute)
        spec = PipelineSpec(**{name: getattr(self.component, name) for name in PipelineSpec.model_fields})
        self.pipeline = check_pipeline(spec, folder)

    def copy(self, instance: dg.DagsterInstance) -> "Shop":
        """Return the shop with a copy of its world, over the same landed files and pipeline."""
        other = copy.copy(self)
        world = {f.name: getattr(self.world, f.name) for f in fields(Services)}
        # One copy of all, so that what refers to each other still does; locks are made anew, not copied.
        locked = (self.world.ledger, self.world.inbox)
        world = copy.deepcopy(world, {id(kept._lock): threading.RLock() for kept in locked})
        other.world, other.instance = Services(**world), instance
        return other

    def run(
        self,
        *stages: str,
        partition: str | None = None,
        span: tuple[str, str] | None = None,
        checks: bool = True,
        launched_by: str = "lena",
    ) -> dg.ExecuteInProcessResult:
        """Materialize stages of one partition, or of a range, in a run of their own."""
        keys = [dg.AssetKey(["shop", "returns", *stage.split("/")]) for stage in stages]
        selection: dg.AssetSelection = dg.AssetSelection.assets(*keys)
        if not checks:
            selection = selection.without_checks()
        tags = {LAUNCHED_BY_TAG: launched_by}
        if span is not None:
            tags |= {
                "dagster/asset_partition_range_start": span[0],
                "dagster/asset_partition_range_end": span[1],
            }
        return dg.materialize(
            list(self.definitions.assets or []),
            selection=selection,
            partition_key=partition,
            instance=self.instance,
            resources=dict(vars(self.world)),
            raise_on_error=False,
            tags=tags,
        )

    def data(self, month: str) -> None:
        """Materialize a month's raw data and features."""
        for country in ("DE", "FR"):
            assert self.run("raw_data", "features", partition=f"{country}|{month}").success

    def models(self, month: str) -> dg.ExecuteInProcessResult:
        """Materialize a month's training, evaluation and decision."""
        variants = [f"models/{name}" for name in self.component.variants]
        return self.run("row_index", "training_set", *variants, "candidate", "evaluation", "promotion", partition=month)
