"""Decisions on real flights, with the real daemon, webserver, registry and ledger: promoted once, or not at all."""

import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster import DagsterEventType as Type
from dagster._core.scheduler.instigation import InstigatorTick
from dagster._core.storage.dagster_run import FINISHED_STATUSES

from ml_assets.approvals.statements import Statement
from resources.data_store import ParquetDataStore
from tests.e2e.governed import MODEL, NAME, PATH, Governed, killed_when
from tests.e2e.graphql import Graphql
from tests.e2e.programs import ML_ASSETS, ROOT, development, environment, instance, ml_assets, wait_for

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.filterwarnings("ignore:The ``noload`` loader strategy is deprecated"),  # MLflow on SQLAlchemy 2.1
]

LONGEST_SECONDS = 600
"""A promotion takes seconds; so long it is waited for on a machine with much else to do."""
MARCH = ("approvals", "approve", NAME, "2013-03")
REFUSED, WAITS, PROMOTED = ("2013-02", "refused"), ("2013-03", "awaiting_approval"), ("2013-03", "promoted")
AGAIN = ("backfill", NAME, "--from", "2013-03", "--to", "2013-03")
OTHER_CLIENT = f"""
import mlflow
client = mlflow.MlflowClient()
first = client.get_model_version("{MODEL}", "1")
made = client.create_model_version("{MODEL}", first.source, run_id=first.run_id)
client.set_registered_model_alias("{MODEL}", "champion", made.version)
"""


def promoted(governed: Governed) -> bool:
    """Whether March's model is champion, for the ledger and for MLflow."""
    return governed.outcomes()[-1] == PROMOTED and governed.aliases().get("champion") == "1"


def test_the_demo_approves_nothing_in_a_policy_tree_that_is_somebody_s(waiting: Governed) -> None:
    shown = " ".join(waiting.printed["demo"].split())

    assert waiting.outcomes() == [REFUSED, WAITS]
    assert "champion" not in waiting.aliases()
    assert "2013-03: the first model waits for approval. The policy tree is yours (ML_ASSETS_POLICIES)" in shown
    assert f"Look: ml-assets approvals show {NAME} 2013-03" in shown
    assert waiting.printed["demo errors"] == ""


def test_the_daemon_promotes_within_seconds_of_the_last_approval(
    waiting: Governed, record_property: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    with development(waiting.state, waiting.settings):
        said = waiting.say(*MARCH, "--as", "anna", "--reason", "I read the dossier.").stdout
        approved, given = time.monotonic(), time.time()
        wait_for("the promotion", lambda: promoted(waiting), timeout_seconds=LONGEST_SECONDS)
        seconds = time.monotonic() - approved

    assert "1 of 1. It is promoted within seconds where the daemon runs" in said
    assert waiting.outcomes() == [REFUSED, WAITS, PROMOTED]
    decision = waiting.ledger().decisions(PATH)[-1]
    assert decision.decided_by == "anna"
    with instance(waiting.state) as opened:
        record = opened.get_run_record_by_id(decision.run_id)
        asked = first_tick(opened, after=given)
    assert record is not None
    assert record.dagster_run.tags["ml_assets/launched_by"] == "sensor:approvals"
    assert record.dagster_run.tags["dagster/sensor_name"] == "approvals"
    assert asked.run_ids == [decision.run_id], "the first look after the approval asks for the run"
    (approval,) = waiting.ledger().records(PATH, kind="approval")
    assert approval.recorded_at is not None
    noticed = (record.create_timestamp - approval.recorded_at).total_seconds()
    began = (record.start_time or 0.0) - record.create_timestamp.timestamp()
    record_property("approval_to_promotion_seconds", round(seconds, 1))
    with capsys.disabled():
        sys.stdout.write(
            f"\nfrom the approval to the promotion by the daemon: {seconds:.1f} s; "
            f"{noticed:.1f} s until the sensor asked for the run, {began:.1f} s until it began\n"
        )


def first_tick(opened: dg.DagsterInstance, *, after: float) -> InstigatorTick:
    """Return the first look of flights' sensor of approvals that asked for a run, or began after a time."""
    (state,) = [
        state
        for state in opened.all_instigator_state()
        if (state.instigator_name, state.repository_selector.location_name) == ("approvals", "flights")
    ]
    ticks = opened.get_ticks(state.instigator_origin_id, state.selector_id)
    return min((t for t in ticks if t.run_ids or t.timestamp > after), key=lambda tick: tick.timestamp)


LAUNCH = """
mutation ($params: ExecutionParams!) {
  launchRun(executionParams: $params) {
    __typename
    ... on LaunchRunSuccess { run { runId } }
    ... on PythonError { message }
    ... on RunConfigValidationInvalid { errors { message } }
  }
}"""


def decide(server: Graphql, opened: dg.DagsterInstance, statement: str) -> dg.DagsterRun:
    """Run the job `decide` with a statement, as its Launchpad does, and return the finished run."""
    params = {
        "selector": {"repositoryLocationName": "flights", "repositoryName": "__repository__", "jobName": "decide"},
        "runConfigData": {"ops": {"record_statement": {"config": {"statement": statement}}}},
    }
    answer = server.ask(LAUNCH, params=params)["launchRun"]
    assert answer["__typename"] == "LaunchRunSuccess", answer

    def ended() -> dg.DagsterRun | None:
        run = opened.get_run_by_id(answer["run"]["runId"])
        return run if run is not None and run.status in FINISHED_STATUSES else None

    return wait_for("the end of the job", ended, timeout_seconds=LONGEST_SECONDS)


def explanation(opened: dg.DagsterInstance, run: dg.DagsterRun) -> str:
    """Return what a failed run's page says of its step."""
    (entry,) = opened.all_logs(run.run_id, of_type=Type.STEP_FAILURE)
    assert entry.dagster_event is not None
    data = entry.dagster_event.step_failure_data.user_failure_data
    assert data is not None
    return data.description or ""


def test_a_statement_is_recorded_in_the_launchpad_and_a_forged_one_is_not(waiting: Governed) -> None:
    statement = waiting.say(*MARCH, "--as", "olga", "--reason", "I read it.", "--print").stdout.strip()
    forged = replace(Statement.decode(statement), reason="I read all of it.").encode()
    with development(waiting.state, waiting.settings) as served, instance(waiting.state) as opened:
        server = Graphql(url=served.dagster_url)
        # What automation records while the statement is on its way does not make it stale.
        wait_for(
            "automation", lambda: waiting.ledger().records(PATH, kind="automation"), timeout_seconds=LONGEST_SECONDS
        )

        refused = decide(server, opened, forged)

        assert refused.status == dg.DagsterRunStatus.FAILURE
        assert "signature" in explanation(opened, refused)
        assert waiting.outcomes() == [REFUSED, WAITS]

        recorded = decide(server, opened, statement)

        assert recorded.status == dg.DagsterRunStatus.SUCCESS
        (approval,) = waiting.ledger().records(PATH, kind="approval")
        assert (approval.body["person"], approval.body["reason"]) == ("olga", "I read it.")
        wait_for("the promotion", lambda: promoted(waiting), timeout_seconds=LONGEST_SECONDS)

        replayed = decide(server, opened, statement)

        assert replayed.status == dg.DagsterRunStatus.FAILURE
        assert "awaits no approval: it is promoted" in explanation(opened, replayed)
    assert waiting.outcomes() == [REFUSED, WAITS, PROMOTED]


def tighten(governed: Governed, setting: str, value: object) -> None:
    """Add a setting to the team's policy."""
    file = governed.policies / "teams" / "flights.yaml"
    with file.open("a", encoding="utf-8") as opened:
        opened.write(f"  {setting}:\n    value: {value}\n    reason: The test asks for it.\n")


def ended_well(*processes: subprocess.Popen[str]) -> list[str]:
    """Wait for programs and return what they printed; each must end with code 0."""
    printed = [process.communicate(timeout=900)[0] for process in processes]
    assert [process.returncode for process in processes] == [0] * len(processes), printed
    assert not [text for text in printed if "Traceback" in text]
    return [" ".join(text.split()) for text in printed]


def test_two_people_and_two_promotions_at_the_same_moment_promote_once(waiting: Governed) -> None:
    tighten(waiting, "approval.needed", 2)
    done = waiting.say(*AGAIN).stdout
    assert waiting.outcomes() == [REFUSED, WAITS, WAITS], f"not asked again under the changed policy: {done}"

    said = ended_well(*(waiting.start(*MARCH, "--as", person, "--reason", "I read it.") for person in ("anna", "olga")))

    assert sorted(re.findall(r"\d of 2", " ".join(said))) == ["1 of 2", "2 of 2"]
    assert sorted(r.body["person"] for r in waiting.ledger().records(PATH, kind="approval")) == ["anna", "olga"]

    ended_well(waiting.start(*AGAIN), waiting.start(*AGAIN))

    assert waiting.outcomes() == [REFUSED, WAITS, WAITS, PROMOTED]
    assert waiting.ledger().decisions(PATH)[-1].decided_by in {"anna, olga", "olga, anna"}
    assert waiting.aliases() == {"champion": "1", "challenger": "1"}
    moves = [(r.body["from"], r.body["to"]) for r in waiting.ledger().records(PATH, subject="champion")]
    assert moves == [(None, "1")]
    assert waiting.ledger().verify() == []


def test_an_alias_that_another_client_moved_is_refused_named_and_put_back(champions: Governed) -> None:
    predictions = champions.state / "data" / "flights" / "arrival_delay" / "predictions"
    shutil.rmtree(predictions)  # or a backfill would find nothing to do
    other_client(champions.state)
    assert champions.aliases()["champion"] == "3"

    champions.say("backfill", NAME, "--from", "2013-04", "--to", "2013-04")

    sentence = (
        "alias champion had been pointed at version 3 without a decision; that is refused, and it points at version 2"
    )
    assert champions.aliases()["champion"] == "2"
    with instance(champions.state) as opened:
        records = opened.fetch_materializations(dg.AssetKey([*PATH, "predictions"]), limit=3).records
    incidents = [r.asset_materialization.metadata.get("incidents") for r in records if r.asset_materialization]
    assert [found.value for found in incidents if found is not None] == [[sentence]]
    (record,) = champions.ledger().records(PATH, kind="incident")
    assert record.body["sentence"] == sentence
    assert sentence[1:] in " ".join(champions.say("history", NAME).stdout.split())
    scores = ParquetDataStore(str(champions.state / "data")).read((*PATH, "predictions"), "EWR|2013-04")
    assert scores["model_version"].unique().to_pylist() == ["1"]  # who was champion before April


def other_client(state: Path) -> None:
    """Point the alias at a version of one's own, as whoever holds the registry's credentials can."""
    address = {"MLFLOW_TRACKING_URI": f"sqlite:///{state}/mlflow/mlflow.db"}
    subprocess.run(
        [sys.executable, "-c", OTHER_CLIENT], env=environment(state, address), check=True, capture_output=True
    )


def test_a_demo_killed_while_its_model_is_checked_has_decided_nothing(killed_in_promotion: Governed) -> None:
    killed_in_promotion.restore("killed")

    assert killed_in_promotion.outcomes() == [REFUSED]
    assert "champion" not in killed_in_promotion.aliases()
    assert "unbroken" in killed_in_promotion.say("ledger", "verify").stdout


def test_a_demo_killed_as_it_promotes_comes_to_the_same_decisions(killed_in_promotion: Governed) -> None:
    governed = killed_in_promotion
    governed.restore("killed")
    demo = subprocess.Popen(
        [ML_ASSETS, "demo", "--periods", "3"],
        cwd=ROOT,
        env=environment(governed.state),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    killed_when(demo, governed.state, "the promotion", lambda: PROMOTED in governed.outcomes())

    again = ml_assets(governed.state, "demo", "--periods", "3")

    assert again.returncode == 0, again.stdout + again.stderr
    assert governed.outcomes() == [REFUSED, WAITS, PROMOTED]
    assert governed.aliases() == {"champion": "1", "challenger": "1"}
    assert len(governed.ledger().records(PATH, kind="approval")) == 1
    assert ml_assets(governed.state, "ledger", "verify").returncode == 0
    assert governed.ledger().verify() == []
