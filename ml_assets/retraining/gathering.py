"""Gathers the situation of one pipeline from the ledger, the data store and the inbox."""

from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from ml_assets.arrivals.put_aside import PutAside, standing_files
from ml_assets.arrow import compute_functions
from ml_assets.digest import document_digest
from ml_assets.errors import GateClosedError, SourceError, StoreError
from ml_assets.interfaces import Decision, StoredPartition
from ml_assets.periods import split_partition
from ml_assets.retraining.attempts import History
from ml_assets.retraining.pauses import paused
from ml_assets.retraining.situation import Period, Situation, Training, Watched
from ml_assets.stages.columns import LABEL_TIME
from ml_assets.stages.step import Step

if TYPE_CHECKING:
    import pyarrow as pa

MOST_TOLD = 3
"""Periods that are not complete, and files in quarantine of each, that are told: every recorded decision has them."""
LIVE = ("waiting", "claimed", "running")


def gather(step: Step, history: History, now: datetime) -> Situation:
    """Return the situation of a pipeline.

    Args:
        step: Any step of the pipeline: its description and the world; partition and run are not used.
        history: What automation recorded.
        now: The instant, UTC.
    """
    services, path = step.services, step.path
    decisions = services.ledger.decisions(path)
    training = newest_training(decisions)
    period, incomplete = _newest_complete(step, training, now)
    # What was said of a champion that has been replaced since is no cause to replace its successor.
    after = training.period if training is not None and training.outcome == "promoted" else ""
    span = (after, "" if period is None else period.key)
    return Situation(
        pipeline=path,
        enabled=step.spec.automation.retraining,
        pause=paused(services.ledger, path),
        period=period,
        incomplete=incomplete,
        training=training,
        drift=_watched(step, "drift", span, _drift_words),
        performance=_watched(step, "performance", span, _performance_words),
        history=history,
    )


def newest_training(decisions: Sequence[Decision]) -> Training | None:
    """Return the training of the newest period that was decided on, with its first decision's time."""
    trained = [d for d in decisions if d.recorded_at is not None]
    if not trained:
        return None
    newest = max(d.partition for d in trained)
    own = [d for d in trained if d.partition == newest]
    # The newest model of that period: a period may be trained for again. Later decisions on the same model, such as
    # an approval, are no training.
    model = own[-1].model_digest
    first = next(d for d in own if d.model_digest == model)
    return Training(period=newest, outcome=own[-1].outcome, at=first.recorded_at or datetime.min.replace(tzinfo=UTC))


def _newest_complete(step: Step, training: Training | None, now: datetime) -> tuple[Period | None, tuple[str, ...]]:
    """Return the newest complete period, and why the newer ones are not; none older than the newest training's."""
    made = _times(step.services.data_store.partitions(step.asset("features")))
    aside, problems = _put_aside(step, "" if training is None else training.period)
    for key in sorted({*made, *aside}, reverse=True):
        if training is not None and key < training.period:
            break
        found = complete_features(step, key) if key in made else f"{key}: no features have been made."
        if isinstance(found, list):
            return _period(step, key, found, training, now), _capped(problems)
        problems.append(" ".join([found, *aside.get(key, [])[:MOST_TOLD]]))
    return None, _capped(problems)


def _capped(problems: list[str]) -> tuple[str, ...]:
    """Return why the newest periods are not complete, and how many others are not: a group may stay away for a year."""
    more = len(problems) - MOST_TOLD
    others = [f"{more} earlier {'one is' if more == 1 else 'ones are'} not complete either."] if more > 0 else []
    return (*problems[:MOST_TOLD], *others)


def _put_aside(step: Step, since: str) -> tuple[dict[str, list[str]], list[str]]:
    """Return period → a sentence for each of its files that lies in quarantine, and what could not be looked at."""
    if not step.spec.automation.arrivals:
        return {}, []

    def period_of(file: PutAside) -> str:
        return split_partition(file.partition or "")[1]

    def concerns(file: PutAside) -> bool:
        return period_of(file) in step.periods and period_of(file) >= since

    try:
        files = standing_files(step.services.landing, step.services.inbox, step.spec, wanted=concerns)
    except SourceError as error:
        return {}, [str(error)]
    told: dict[str, list[str]] = {}
    for file in files:
        sentence = f"A file for [{file.partition}] lies in quarantine: {file.reason}"
        told.setdefault(period_of(file), []).append(sentence)
    return told, []


def complete_features(step: Step, period: str) -> list[StoredPartition] | str:
    """Return the feature partitions of a period in which every group is there and no gate closed, or why not.

    A gate of raw data counts too: features may be of an older version than the rows that were refused.
    """
    found: list[StoredPartition] = []
    try:
        for partition in step.group_partitions(period):
            step.describe(("raw_data",), partition)
            found.append(step.describe(("features",), partition))
    except (StoreError, GateClosedError) as problem:
        return f"{period}: {problem}"
    return found


def _period(
    step: Step, key: str, features: Sequence[StoredPartition], training: Training | None, now: datetime
) -> Period:
    store = step.services.data_store
    spec = step.spec.training
    window = step.periods.window(key, None if spec.window == "expanding" else spec.window)
    index = {past: store.describe(step.asset("row_index"), past) for past in window}
    known, known_at = _labels_of(step, features, now)
    since = window if training is None else [past for past in window if past >= training.period]
    cutoff = min(now, step.periods.bounds(key)[0])
    inputs = [[s.partition, s.data_version] for s in (*features, *(i for i in index.values() if i is not None))]
    waiting, dead = _events_of(step, key)
    return Period(
        key=key,
        inputs=document_digest({"inputs": sorted(inputs)}),
        window=tuple(window),
        unindexed=tuple(past for past, stored in index.items() if stored is None),
        labels=known,
        labels_known_at=known_at,
        new_labels=sum(_indexed_labels(step, past, cutoff) for past in since if index[past] is not None),
        waiting=waiting,
        dead=dead,
    )


def _labels_of(step: Step, features: Sequence[StoredPartition], now: datetime) -> tuple[int, datetime | None]:
    """Return how many labels of feature partitions are known now, and when the last one will be."""
    pc = compute_functions()
    known, last = 0, None
    label = step.spec.label.column
    for stored in features:
        table = step.services.data_store.read(
            stored.asset, stored.partition, columns=[LABEL_TIME, label], data_version=stored.data_version
        )
        times = table.filter(pc.is_valid(table[label]))[LABEL_TIME]
        known += _known(times, now)
        latest: datetime | None = pc.max(times).as_py()
        if latest is not None and (last is None or latest > last):
            last = latest
    return known, None if last is None else last.astimezone(UTC)


def _indexed_labels(step: Step, period: str, at: datetime) -> int:
    table = step.services.data_store.read(step.asset("row_index"), period, columns=["label_time", "labelled"])
    return _known(table.filter(table["labelled"])["label_time"], at)


def _known(times: "pa.ChunkedArray", at: datetime) -> int:
    import pyarrow as pa

    pc = compute_functions()
    known = pc.less_equal(times, pa.scalar(at, type=times.type))
    return int(pc.sum(known).as_py() or 0)


def _events_of(step: Step, period: str) -> tuple[int, int]:
    """Return how many events of a period are on their way, and how many are dead letters."""
    events = step.services.inbox.events(pipelines=[step.path], states=[*LIVE, "dead"], limit=None)
    own = [e.state for e in events if split_partition(e.event.partition)[1] == period]
    return sum(state in LIVE for state in own), sum(state == "dead" for state in own)


def _watched(
    step: Step, stage: str, span: tuple[str, str], words: Callable[[dict[str, Any]], str]
) -> tuple[Watched, ...]:
    """Return what a monitoring stage says of its newest period after `span[0]`, and not after `span[1]`."""
    store, asset = step.services.data_store, step.asset(stage)
    times = [time for time in _times(store.partitions(asset)) if span[0] < time <= span[1]]
    if not times:
        return ()
    found = []
    for partition in step.group_partitions(max(times)):
        stored = store.describe(asset, partition)
        if stored is not None:
            document = store.read_document(asset, partition, data_version=stored.data_version)
            found.append(
                Watched(
                    partition=partition,
                    verdict=document["verdict"],
                    words=words(document),
                    evidence=stored.data_version,
                )
            )
    return tuple(found)


def _times(partitions: Iterable[str]) -> set[str]:
    return {split_partition(partition)[1] for partition in partitions}


def _drift_words(document: dict[str, Any]) -> str:
    moved = ", ".join(document["moved"][:3]) + (", …" if len(document["moved"]) > 3 else "")
    return f"{moved or 'no column'} moved, with {document['importance_moved']:.0%} of the importance"


def _performance_words(document: dict[str, Any]) -> str:
    return "; ".join(document["reasons"][:2]).rstrip(".")
