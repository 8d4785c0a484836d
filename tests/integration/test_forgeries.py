"""Forgeries by pipeline code that holds every credential but no private key, on a real ledger, registry and store.

What refused each stands in a table of docs/concepts/approvals.md; `pytest --update-golden` writes it anew.
"""

import copy
import re
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest

from ml_assets.approvals.giving import record_of, records_head, submit, waiting_decision
from ml_assets.approvals.signing import Signer, sign_statement
from ml_assets.approvals.statements import Statement, subject_of
from ml_assets.digest import document_digest
from ml_assets.errors import MlAssetsError
from ml_assets.interfaces import Decision, LoggedModel, ModelRun, Record
from ml_assets.stages import predictions
from ml_assets.stages.predictions import NoChampionYet
from ml_assets.stages.recorded_policy import policy_document
from ml_assets.stages.step import Step
from ml_assets.stages.trust import trusted_champion
from ml_assets.training import predict, trusted_types
from resources.model_files import MODEL_FILE
from resources.stored_models import DIGEST_TAG
from tests.components.shop import Shop, TestSigner, land_orders, policy
from tests.integration.test_promotion_kill import real_world

# MLflow on SQLAlchemy 2.1
pytestmark = pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated")

PAGE = Path(__file__).parents[2] / "docs" / "concepts" / "approvals.md"
PATH, NAME = ("shop", "returns"), "shop.returns"
FIRST, CHAMPION, SCORED = "2024-02", "2024-03", "DE|2024-04"
MINE = "3"
"""Version of the model that somebody wants to score: it was registered, and nobody decided on it."""


Act = Callable[["Attacker"], None]


@dataclass(frozen=True, kw_only=True)
class Forgery:
    """One attempt.

    Attributes:
        name: In two or three words.
        does: What is done, for the page.
        act: Does it.
        refused: Pattern of what is said against it; the match stands on the page.
    """

    name: str
    does: str
    act: Act
    refused: str


class Attacker:
    """Somebody with the credentials of ledger, registry and store, who can neither sign nor write the policy."""

    def __init__(self, shop: Shop, folder: Path) -> None:
        self.shop, self.world, self.folder = shop, shop.world, folder
        self.registry, self.ledger = shop.world.model_registry, shop.world.ledger
        self.own: Any = None

    def decision(self, partition: str, outcome: str = "promoted") -> Decision:
        """Return what was decided of a partition."""
        found = [d for d in self.ledger.decisions(PATH) if (d.partition, d.outcome) == (partition, outcome)]
        return found[-1]

    def automatic(self, **evidence: Any) -> Decision:
        """Return a promotion of the own model that says of itself what the champion's says, but for some evidence."""
        document = {"report": {}, "invented": True}
        version = document_digest(document)
        asset = (*PATH, "evaluation")
        self.world.data_store.write_document(asset, CHAMPION, document, data_version=version)
        champion = self.decision(CHAMPION)
        return replace(
            champion,
            model_version=MINE,
            model_digest=self.registry.digest(self.registry.version(NAME, MINE).model_uri),
            data_version=version,
            evaluation_digest=version,
            evidence={**champion.evidence, **evidence},
            recorded_at=None,
        )

    def record(self, decision: Decision) -> None:
        """Write a row as the library does, chained."""
        self.ledger.record_decision(replace(decision, recorded_at=None))

    def sign(self, signer: Signer, decision: Decision) -> Statement:
        """Return an approval of a decision, for the chain's end."""
        return sign_statement(
            signer,
            action="approve",
            pipeline=PATH,
            partition=decision.partition,
            subject=subject_of(decision),
            reason="The slices look right.",
            issued_at=datetime.now(UTC),
            valid_for=timedelta(days=7),
            previous=records_head(self.ledger, PATH),
        )

    def sql(self, *statements: str, database: str = "ledger.db") -> None:
        """Run statements with the database's credentials."""
        with closing(sqlite3.connect(self.folder / database)) as connection, connection:
            for statement in statements:
                connection.execute(statement)

    def files(self, version: str) -> Path:
        """Return the folder of a version's files."""
        stored = self.registry.stored(self.registry.version(NAME, version).model_uri)  # pyright: ignore[reportAttributeAccessIssue]
        return Path(stored.location.removeprefix("file://"))

    def evaluation(self) -> Path:
        """Return the file of the champion's evaluation."""
        return next((self.folder / "data").rglob(f"evaluation/**/{self.decision(CHAMPION).data_version}.json"))


FORGERIES: list[Forgery] = []


def forgery(refused: str) -> Callable[[Act], Act]:
    """Return how to count a function among the attempts: its name and its first line stand on the page."""

    def add(act: Act) -> Act:
        does = (act.__doc__ or "").partition("\n")[0].removesuffix(".")
        name = act.__name__.replace("_", " ")
        FORGERIES.append(Forgery(name=name, does=does[0].lower() + does[1:], act=act, refused=refused))
        return act

    return add


class Named(TestSigner):
    """A key of the attacker's own, in another's name."""

    def __init__(self, name: str) -> None:
        super().__init__("mallory")
        self.person = name


@forgery(r"it does not record what it was decided on")
def only_a_row(a: Attacker) -> None:
    """Writes `promoted`, decided by olga, for an own model."""
    a.record(replace(a.automatic(), evidence={}, decided_by="olga", reason="Approved by olga."))


@forgery(r"version 1 was champion, and it names none")
def first_model(a: Attacker) -> None:
    """Says that there was no champion."""
    a.record(replace(a.automatic(), champion_version=None))


@forgery(r"version 1 was champion, and it names 77")
def unknown_champion(a: Attacker) -> None:
    """Says that it was compared with a version that never was champion."""
    a.record(replace(a.automatic(), champion_version="77"))


@forgery(r"features: new religion")
def other_features(a: Attacker) -> None:
    """Promotes with a new feature."""
    made = a.decision(CHAMPION).evidence["fingerprint"]
    a.record(a.automatic(fingerprint={**made, "features": [*made["features"], "religion"]}))


@forgery(r"another feature code")
def other_code(a: Attacker) -> None:
    """Promotes with other feature code."""
    made = a.decision(CHAMPION).evidence["fingerprint"]
    a.record(a.automatic(fingerprint={**made, "feature_code": "0" * 64}))


@forgery(r"roc_auc moved by \+0\.4000, more than 0\.2")
def too_good(a: Attacker) -> None:
    """Promotes with a metric that moved beyond the band."""
    challenge = a.decision(CHAMPION).evidence["challenge"]
    better = {**challenge["improvement"], "estimate": 0.4}
    a.record(a.automatic(challenge={**challenge, "improvement": better}))


@forgery(r"nobody signed for it")
def invented_policy(a: Attacker) -> None:
    """Brings along a policy that wants no approvals."""
    lenient = policy().effective(PATH)
    row = replace(a.automatic(policy=policy_document(lenient)), policy_digest=lenient.digest, champion_version=None)
    a.record(row)


@forgery(r"nobody signed for it")
def borrowed_policy_digest(a: Attacker) -> None:
    """The same, under the digest of a policy that was signed for."""
    a.record(replace(a.automatic(policy=policy_document(policy().effective(PATH))), champion_version=None))


@forgery(r"it scores its own input example otherwise than when it was promoted")
def champions_papers(a: Attacker) -> None:
    """Gives an own model the champion's evidence, and a serving check of its own bytes."""
    a.record(served(a.automatic()))


def served(row: Decision) -> Decision:
    """Return a row whose evidence says that exactly its model was served."""
    serving = {**row.evidence["serving"], "model_digest": row.model_digest}
    return replace(row, evidence={**row.evidence, "serving": serving})


@forgery(r"it records no serving check of its model")
def papers_of_another_model(a: Attacker) -> None:
    """Gives an own model the champion's evidence as it is."""
    a.record(a.automatic())


@forgery(r"it is a \w+, and was promoted as a \w+")
def other_class(a: Attacker) -> None:
    """The same, for a model of another class."""
    won = a.decision(CHAMPION).evidence["fingerprint"]["estimator"]
    lost = next(name for name, variant in a.shop.component.variants.items() if variant.estimator != won)
    document = a.world.data_store.read_document((*PATH, "models", lost), CHAMPION)
    logged = LoggedModel(run_id=document["run_id"], model_uri=document["model_uri"])
    version = a.registry.register(NAME, logged, tags={})
    digest = a.registry.digest(version.model_uri)
    a.record(served(replace(a.automatic(), model_version=version.version, model_digest=digest)))


@forgery(r"nobody signed for it")
def policy_of_another_pipeline(a: Attacker) -> None:
    """Brings along a lenient policy that a reviewer signed for in another pipeline."""
    lenient = policy().effective(("sandbox", "toy"))
    elsewhere = sign_statement(
        TestSigner("olga"),
        action="approve",
        pipeline=("sandbox", "toy"),
        partition="2020-01",
        subject={"policy_digest": lenient.digest},
        reason="A toy.",
        issued_at=datetime.now(UTC),
        valid_for=timedelta(days=1),
        previous=records_head(a.ledger, PATH),
    )
    a.ledger.append(Record(pipeline=PATH, kind="approval", subject="0", body=elsewhere.to_body()))
    row = a.automatic(policy=policy_document(lenient), serving=None)
    a.record(replace(row, policy_digest=lenient.digest, champion_version=None))


@forgery(r"data sources: other partitions")
def replaced_evidence(a: Attacker) -> None:
    """Repeats the row that was signed for with other evidence, so that an own model follows it unchanged."""
    first = a.decision(FIRST)
    made = {**first.evidence["fingerprint"], "sources": {"partitions": "elsewhere"}}
    a.record(replace(first, evidence={**first.evidence, "fingerprint": made}))
    a.record(a.automatic(fingerprint=made, serving=None))


@forgery(r"it names version 1 as champion, which was none")
def champion_that_was_rolled_back(a: Attacker) -> None:
    """Follows a champion that was rolled back."""
    row = a.automatic(serving=None)
    a.record(replace(a.decision(CHAMPION), outcome="rolled_back"))
    a.record(replace(a.decision(FIRST), outcome="rolled_back"))
    a.record(row)


@forgery(r"it was not waiting for approval any more: it was rolled_back")
def row_of_before(a: Attacker) -> None:
    """Repeats the row that was signed for after it was rolled back."""
    signed = a.decision(FIRST)
    a.record(replace(a.decision(CHAMPION), outcome="rolled_back"))
    a.record(replace(signed, outcome="rolled_back"))
    a.ledger.record_decision(signed)


@forgery(r"it is dated in the future")
def far_future(a: Attacker) -> None:
    """Dates a row to the end of the calendar."""
    a.ledger.record_decision(replace(a.automatic(), recorded_at=datetime.max.replace(tzinfo=UTC)))


@forgery(r"what it records cannot be read")
def nonsense(a: Attacker) -> None:
    """Writes text where numbers belong."""
    a.record(a.automatic(challenge="x"))


def sign_again(a: Attacker, *names: str, **values: str) -> None:
    """Write the first champion's row again, which olga signed for, with something else in it."""
    changes = {name: getattr(a.automatic(), name) for name in names} | values
    a.record(replace(a.decision(CHAMPION), outcome="rolled_back"))
    a.record(replace(a.decision(FIRST), **changes))


@forgery(r"on something else: model_digest")
def approval_of_another_model(a: Attacker) -> None:
    """Puts an own version and its digest into the row that was signed for."""
    sign_again(a, "model_version", "model_digest")


@forgery(r"on something else: model_digest")
def approval_of_another_digest(a: Attacker) -> None:
    """Leaves the version and changes the digest."""
    sign_again(a, "model_digest")


@forgery(r"on something else: data_version")
def approval_of_another_evaluation(a: Attacker) -> None:
    """Puts an own evaluation into the row that was signed for."""
    sign_again(a, "data_version", "evaluation_digest")


@forgery(r"on something else: model_name")
def approval_of_another_name(a: Attacker) -> None:
    """Lets the row lead to another registered model."""
    sign_again(a, model_name="shop.other")


@forgery(r"nobody signed for it")
def approval_of_another_period(a: Attacker) -> None:
    """Repeats the row for a later period."""
    sign_again(a, partition=CHAMPION)


@forgery(r"the signature does not fit what it says")
def rewritten_approval(a: Attacker) -> None:
    """Turns a reviewer's approval into one of an own model."""
    mine = replace(a.automatic(), champion_version=None)
    a.record(mine)
    given = a.ledger.records(PATH, kind="approval")[0]
    place = {"previous": records_head(a.ledger, PATH), "partition": CHAMPION}
    body = {**given.body, **place, "subject": subject_of(mine)}
    a.ledger.append(Record(pipeline=PATH, kind="approval", subject=document_digest(subject_of(mine)), body=body))


@forgery(r"filed under another subject than the one that was signed")
def refiled_approval(a: Attacker) -> None:
    """Files it as it is under an own model."""
    mine = replace(a.automatic(), champion_version=None)
    a.record(mine)
    a.ledger.append(replace(a.ledger.records(PATH, kind="approval")[0], subject=document_digest(subject_of(mine))))


def sign_as(a: Attacker, name: str) -> None:
    mine = replace(a.automatic(), champion_version=None)
    a.record(mine)
    a.ledger.append(record_of(a.sign(Named(name), mine), datetime.now(UTC)))


@forgery(r"no key of theirs is")
def forged_signature(a: Attacker) -> None:
    """Signs as olga with an own key."""
    sign_as(a, "olga")


@forgery(r"is not among the people of the policy")
def name_that_looks_alike(a: Attacker) -> None:
    """Signs as olga, written with a Cyrillic letter."""
    sign_as(a, "\u043elga")


@forgery(r"had been pointed at version 3 without a decision; that is refused")
def moved_alias(a: Attacker) -> None:
    """Points `champion` at an own version in MLflow."""
    a.registry.set_alias(NAME, "champion", MINE)


@forgery(r"the model's file was changed after it was logged")
def version_that_leads_elsewhere(a: Attacker) -> None:
    """Lets the champion's version number lead to an own model in MLflow's database."""
    columns = ("source", "run_id", "storage_location")
    wanted = ", ".join(f"{c} = (SELECT {c} FROM model_versions WHERE version = {MINE})" for c in columns)  # noqa: S608
    a.sql(f"UPDATE model_versions SET {wanted} WHERE version < {MINE}", database="mlflow/mlflow.db")  # noqa: S608


@forgery(r"the model's file was changed after it was logged")
def changed_model_file(a: Attacker) -> None:
    """Changes the champion's file, and its digest in MLflow."""
    champion, mine = a.files("2"), a.files(MINE)
    shutil.copy(mine / MODEL_FILE, champion / MODEL_FILE)
    digest = a.registry.digest(a.registry.version(NAME, "2").model_uri)
    tag = f"UPDATE logged_model_tags SET tag_value = '{digest}' WHERE tag_key = '{DIGEST_TAG}'"  # noqa: S608
    a.sql(tag, database="mlflow/mlflow.db")


@forgery(r"refused before its model file was read")
def pickle(a: Attacker) -> None:
    """Says that the champion's file is a pickle."""
    description = a.files("2") / "MLmodel"
    text = description.read_text().replace("serialization_format: skops", "serialization_format: cloudpickle")
    description.write_text(text)


@forgery(r"its evaluation was changed")
def changed_evaluation(a: Attacker) -> None:
    """Changes the champion's evaluation, with a checksum that fits."""
    decision = a.decision(CHAMPION)
    asset = (*PATH, "evaluation")
    document = a.world.data_store.read_document(asset, CHAMPION, data_version=decision.data_version)
    a.evaluation().unlink()
    better = {**document, "champion": None}
    a.world.data_store.write_document(asset, CHAMPION, better, data_version=decision.data_version)


@forgery(r"its evaluation cannot be read")
def removed_evaluation(a: Attacker) -> None:
    """Removes the champion's evaluation."""
    a.evaluation().unlink()


@forgery(r"the ledger is append-only")
def changed_row(a: Attacker) -> None:
    """Updates a decision."""
    a.sql(f"UPDATE decisions SET model_version = '{MINE}' WHERE outcome = 'promoted'")  # noqa: S608


@forgery(r"was tampered with: decisions/shop/returns, row 2: changed")
def changed_row_without_triggers(a: Attacker) -> None:
    """Drops the triggers first."""
    a.sql("DROP TRIGGER decisions_no_update")
    changed_row(a)


@forgery(r"was tampered with: records/shop/returns, row \d: removed")
def removed_row(a: Attacker) -> None:
    """Drops the triggers and deletes an approval."""
    a.sql("DROP TRIGGER records_no_delete", "DELETE FROM records WHERE kind = 'approval'")


@forgery(r"was tampered with: decisions/shop/returns, row 4: changed")
def row_outside_of_the_chain(a: Attacker) -> None:
    """Writes a row that does not continue the one before."""
    a.record(a.automatic())
    a.sql(
        "DROP TRIGGER decisions_no_update",
        "UPDATE decisions SET previous_hash = row_hash WHERE sequence = (SELECT max(sequence) FROM decisions)",
    )


@forgery(r"without a time zone")
def instant_without_a_zone(a: Attacker) -> None:
    """Dates a row without a time zone."""
    a.ledger.record_decision(replace(a.automatic(), recorded_at=datetime(2013, 1, 1)))  # noqa: DTZ001


def step(shop: Shop, partition: str) -> Step:
    return Step(pipeline=shop.pipeline, services=shop.world, partition=partition, run_id="r", launched_by="lena")


def approve(a: Attacker) -> None:
    """Let olga sign for the first model."""
    waiting = waiting_decision(a.ledger, PATH, FIRST)
    given = submit(a.ledger, a.world.policy, a.sign(TestSigner("olga"), waiting), now=datetime.now(UTC))
    assert given.complete


def register_own_model(a: Attacker) -> None:
    """Log and register a model of the champion's class that says the opposite."""
    champion = a.registry.version(NAME, "2")
    trusted = trusted_types(a.shop.pipeline.spec.variants.values())
    model = copy.deepcopy(a.registry.load(champion.model_uri, trusted_types=trusted))
    estimator = model.named_steps["estimator"]
    if hasattr(estimator, "coef_"):
        estimator.coef_ = -estimator.coef_
    else:
        estimator._baseline_prediction = estimator._baseline_prediction - 3
    a.own, example = model, a.registry.example(champion.model_uri)
    run = ModelRun(
        experiment="shop/returns",
        name="mine",
        model=model,
        input_example=example,
        output_example=model.predict_proba(example),
        params={},
        metrics={},
        tags={},
        trusted_types=trusted,
    )
    assert a.registry.register(NAME, a.registry.log_model(run), tags={}).version == MINE


def restore(before: Path, folder: Path) -> None:
    """Put everything back; databases in place, since MLflow keeps connections to its own."""
    for name in ("ledger.db", "mlflow/mlflow.db"):
        with closing(sqlite3.connect(before / name)) as source, closing(sqlite3.connect(folder / name)) as target:
            source.backup(target)
    for name in ("data", "mlflow/artifacts"):
        shutil.rmtree(folder / name)
        shutil.copytree(before / name, folder / name)


def said_of(a: Attacker, forgery: Forgery) -> tuple[str, set[str]]:
    """Carry a forgery out and score; return all that was said against it, and the versions that scored."""
    said: list[str] = []
    versions: set[str] = set()
    try:
        forgery.act(a)
    except (MlAssetsError, sqlite3.IntegrityError) as error:
        said.append(str(error))
    try:
        result = predictions.run(step(a.shop, SCORED))
        table = a.world.data_store.read((*PATH, "predictions"), SCORED, data_version=result.stored.data_version)
        features = a.world.data_store.read((*PATH, "features"), SCORED).to_pandas()
        own = np.allclose(table["score"], predict(a.own, features, task="binary"))
        versions = {MINE} if own else set(table["model_version"].to_pylist())
        said += result.facts.get("incidents", [])
        said += trusted_champion(a.world, PATH, "2024-04").refused
    except (MlAssetsError, NoChampionYet) as error:
        said.append(str(error))
    said += [d.reason for d in a.ledger.decisions(PATH) if d.decided_by == "predictions"]
    return "\n".join(said), versions


@pytest.fixture(scope="module")
def attacker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Attacker]:
    """A champion of February that olga signed for, one of March that was not material, and an own model."""
    folder = tmp_path_factory.mktemp("state")
    months = ("2024-01", FIRST, CHAMPION, "2024-04")
    land_orders(folder / "landing", months, per_day=15)
    with dg.DagsterInstance.ephemeral() as instance:
        world = replace(real_world(folder), policy=policy(**{"material.first_model": True}))
        shop = Shop(folder, world, instance)
        attacker = Attacker(shop, folder)
        for month in months[:3]:
            shop.data(month)
            assert shop.run("row_index", partition=month).success
        assert shop.run("raw_data", "features", partition=SCORED).success
        assert shop.models(FIRST).success
        approve(attacker)
        assert shop.run("promotion", partition=FIRST).success
        assert shop.models(CHAMPION).success
        register_own_model(attacker)
        yield attacker


@pytest.fixture(scope="module")
def outcomes(attacker: Attacker) -> dict[str, tuple[str, set[str]]]:
    """What was said of each forgery, and which versions scored after it."""
    before = attacker.folder.with_name("before")
    shutil.copytree(attacker.folder, before)
    found: dict[str, tuple[str, set[str]]] = {}
    for forgery in FORGERIES:
        found[forgery.name] = said_of(attacker, forgery)
        restore(before, attacker.folder)
    return found


def test_without_a_forgery_the_champion_scores_and_nothing_is_said(attacker: Attacker) -> None:
    honest = Forgery(name="", does="", act=lambda _: None, refused="")

    assert said_of(attacker, honest) == ("", {"2"})


@pytest.mark.parametrize("forgery", FORGERIES, ids=lambda forgery: forgery.name)
def test_a_forgery_does_not_score_and_is_named(forgery: Forgery, outcomes: dict[str, tuple[str, set[str]]]) -> None:
    said, versions = outcomes[forgery.name]

    assert versions <= {"1", "2"}
    assert re.search(forgery.refused, said), said


def test_the_page_shows_what_refused_each(outcomes: dict[str, tuple[str, set[str]]], *, update_golden: bool) -> None:
    rows = ["| attempt | what is done | what refuses it |", "|---|---|---|"]
    for forgery in FORGERIES:
        match = re.search(forgery.refused, outcomes[forgery.name][0])
        rows.append(f"| {forgery.name} | {forgery.does} | {match[0] if match else 'nothing'} |")
    text = PAGE.read_text(encoding="utf-8")
    block = re.compile(r"(?<=<!-- attacks: forgeries -->\n).*?(?=\n<!-- end -->)", re.DOTALL)
    if update_golden:
        text = block.sub(lambda _: "\n".join(rows), text)
        PAGE.write_text(text, encoding="utf-8")

    shown = block.search(text)
    assert shown is not None
    assert shown[0] == "\n".join(rows), "write it anew with --update-golden"
