"""Files that arrive at a project under the real daemon: how soon their runs start, and a thousand at once."""

import json
import re
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator

import dagster as dg
import pytest

from tests.e2e.arriving import KEY, ArrivingProject, latency_of, partitions, percentile, read_until
from tests.e2e.programs import ML_ASSETS, wait_for

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800), pytest.mark.filterwarnings("ignore:Non-compliant tag keys")]

TOKEN = "a-token-of-the-tests-that-is-long"  # noqa: S105 - of no real server
SERVE = (str(ML_ASSETS), "inbox", "serve", "--port", "0")
WATCH = (str(ML_ASSETS), "inbox", "watch")
TODAY = partitions(20)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ArrivingProject]:
    made = ArrivingProject(root=tmp_path_factory.mktemp("arriving"))
    made.found()
    with made.daemon():
        yield made


def states(project: ArrivingProject) -> Counter[str]:
    """Return how many of the newest event of each partition are in each state."""
    from resources.ledger.inbox import SqlInbox

    inbox = SqlInbox(f"sqlite:///{project.state / 'ledger.db'}")
    return Counter({e.event.partition: e.state for e in reversed(inbox.events(limit=5000))}.values())


def test_the_sensor_starts_runs_within_seconds(project: ArrivingProject) -> None:
    latency_of(project, TODAY[:1])  # the first one pays for what is loaded once

    latency = latency_of(project, TODAY[1:11])

    sys.stderr.write(f"\nthrough the sensor: {latency}\n")
    assert percentile(latency.queued, 95) < 20, "7 s on a machine with nothing else to do"


def test_the_watch_starts_runs_at_once_and_the_sensor_makes_none_of_the_same(project: ArrivingProject) -> None:
    with project.running(WATCH, "watch.log") as process:
        read_until(process, "Stop with Ctrl-C.", timeout_seconds=300)
        latency_of(project, TODAY[11:12])

        latency = latency_of(project, TODAY[12:22])

    sys.stderr.write(f"\nby the watch: {latency}\n")
    assert percentile(latency.queued, 95) < 6, "2 s on a machine with nothing else to do"
    with project.instance() as instance:
        runs = instance.get_runs()
        keys = Counter(run.tags["dagster/run_key"] for run in runs)
    assert set(keys.values()) == {1}
    assert len({run.remote_job_origin for run in runs}) == 1, "Dagster sees pushed runs as the sensor's"
    assert len({(run.job_name, str(run.job_code_origin)) for run in runs}) == 1
    assert {frozenset(run.tags) - {"dagster/tick"} for run in runs} == {frozenset(runs[0].tags) - {"dagster/tick"}}
    wait_for("an end of all events", lambda: set(states(project)) == {"done"}, timeout_seconds=120)


def test_a_program_that_posts_a_file_has_its_run_at_once(project: ArrivingProject) -> None:
    settings = {"ML_ASSETS_INBOX_TOKEN": TOKEN}
    with project.running(SERVE, "serve.log", settings) as process, project.instance() as instance:
        printed = read_until(process, "Stop with Ctrl-C.", timeout_seconds=300)
        url = re.findall(r"http://127\.0\.0\.1:\d+/v1/events", printed)[0]
        partition = "west|2025-01-01"
        landed = time.time()
        project.land([partition])

        answer = post(url, {"pipeline": "shop/orders", "place": "shop/2025-01-01_west.csv"})

        assert set(answer) & {"waiting", "number"}, answer
        run = wait_for("its run", lambda: newest(instance, partition), timeout_seconds=120, every_seconds=0.05)
        sys.stderr.write(f"\nby HTTP: queued after {run.create_timestamp.timestamp() - landed:.2f} s\n")
        again = post(url, {"pipeline": "shop/orders", "place": "shop/2025-01-01_west.csv"})
        assert again == {"repeated": True}
    assert TOKEN not in printed + (project.root / "serve.log").read_text(encoding="utf-8")
    wait_for("an end of all events", lambda: set(states(project)) == {"done"}, timeout_seconds=120)


def post(url: str, body: object) -> dict[str, object]:
    """Post to the endpoint with the token, and return what it answers."""
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"}
    request = urllib.request.Request(url, data=json.dumps(body).encode(), headers=headers)  # noqa: S310 - loopback
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return json.load(answer)


def newest(instance: dg.DagsterInstance, partition: str) -> dg.RunRecord | None:
    """Return the record of a partition's newest run."""
    records = instance.get_run_records(dg.RunsFilter(tags={"dagster/partition": partition}), limit=1)
    return records[0] if records else None


def test_a_thousand_files_at_once_are_few_runs_and_none_is_lost_or_doubled(project: ArrivingProject) -> None:
    wanted = partitions(270)[80:]
    with project.instance() as instance:
        before = instance.get_runs_count()
        project.land(wanted[:1000], rows=2)

        wait_for(
            "a run of each partition",
            lambda: sum(states(project).values()) >= 1000 and set(states(project)) == {"done"},
            timeout_seconds=900,
            every_seconds=2,
        )

        made = instance.get_materialized_partitions(KEY)
        assert set(wanted[:1000]) <= made
        assert instance.get_runs_count() - before <= 10
        again = Counter((r.run_id, r.partition_key) for r in _records(instance))
        own = {key: count for key, count in again.items() if key[1] in set(wanted)}
        runs_of = Counter(partition for _, partition in own)
        assert set(runs_of.values()) == {1}, "each partition was made by one run"


def _records(instance: dg.DagsterInstance) -> list[dg.EventLogRecord]:
    found, cursor, more = [], None, True
    while more:
        page = instance.fetch_materializations(KEY, limit=1000, cursor=cursor)
        found += page.records
        cursor, more = page.cursor, page.has_more
    return found
