"""Tables of the command line: what each period's gates, variants and decision say."""

from typing import Any

from rich.table import Table
from rich.text import Text

from ml_assets.errors import MlAssetsError
from ml_assets.interfaces import Verdict
from ml_assets.periods import join_partition
from ml_assets.reading.pipeline_file import LoadedPipeline
from ml_assets.stages.champions import latest_by_partition
from ml_assets.stages.step import Services, Step, gates_of

COLOURS = {"promoted": "green", "kept": "cyan", "undecided": "yellow", "refused": "red"}


def summary(services: Services, loaded: LoadedPipeline, periods: list[str]) -> Table:
    """Return a row for each period: rows, checks, each variant's metric with its interval, decision, version."""
    spec = loaded.spec
    metric = spec.selection.metric
    table = Table(title=f"{spec.team}/{spec.name}", title_justify="left", header_style="bold", expand=False)
    table.add_column("partition", no_wrap=True)
    table.add_column("rows", justify="right")
    table.add_column("checks")
    for variant in spec.variants:
        table.add_column(f"{variant}\n{metric}, validation")
    table.add_column(f"candidate\n{metric}, test")
    table.add_column("verdict")
    table.add_column("version", justify="right")
    for period in periods:
        table.add_row(*_row(services, loaded, period))
    return table


def _row(services: Services, loaded: LoadedPipeline, period: str) -> list[Text | str]:
    spec = loaded.spec
    path = (spec.team, spec.name)
    step = Step(pipeline=loaded, services=services, partition=period, run_id="")
    stored = [services.data_store.describe((*path, "features"), p) for p in step.group_partitions(period)]
    rows = sum(s.n_rows for s in stored if s is not None)
    models = [_document(services, (*path, "models", v), period) for v in spec.variants]
    evaluation = _document(services, (*path, "evaluation"), period)
    decision = latest_by_partition(services.ledger.decisions(path)).get(period)
    verdict = Text("–", style="dim")
    if decision is not None:
        verdict = Text(decision.outcome, style=COLOURS[decision.outcome])
    return [
        period,
        f"{rows:,}" if any(stored) else "–",
        _checks(step),
        *(_interval(m["validation"][spec.selection.metric]) if m else "–" for m in models),
        _test(evaluation, spec.selection.metric),
        verdict,
        (decision.model_version or "–") if decision is not None else "–",
    ]


def _checks(step: Step) -> Text:
    """Return how many checks passed over the period's data and its evaluation, and which failed."""
    group = step.spec.partitions.group
    places = [
        (stage, join_partition(value, step.time))
        for stage in ("raw_data", "features")
        for value in ([None] if group is None else group.values)
    ]
    verdicts = [
        v for stage, partition in [*places, ("evaluation", step.time)] for v in _verdicts(step, stage, partition)
    ]
    if not verdicts:
        return Text("–", style="dim")
    failed = [v for v in verdicts if v.outcome == "failed"]
    closed = [v for v in failed if v.severity == "error"]
    text = f"{len(verdicts) - len(failed)}/{len(verdicts)} passed"
    if failed:
        text += "\n" + "\n".join(sorted({v.check for v in failed}))
    return Text(text, style="red" if closed else "yellow" if failed else "green")


def _verdicts(step: Step, stage: str, partition: str) -> list[Verdict]:
    stored = step.services.data_store.describe(step.asset(stage), partition)
    if stored is None:
        return []
    try:
        _, policy_version = gates_of(step, stage)
    except MlAssetsError:
        return []
    found = step.services.ledger.verdicts(
        step.asset(stage), partition, data_version=stored.data_version, policy_version=policy_version
    )
    return list({v.check: v for v in found}.values())


def _document(services: Services, asset: tuple[str, ...], period: str) -> dict[str, Any] | None:
    if services.data_store.describe(asset, period) is None:
        return None
    return services.data_store.read_document(asset, period)


def _interval(values: dict[str, Any]) -> str:
    return f"{values['estimate']:.3f} [{values['lower']:.3f}, {values['upper']:.3f}]"


def _test(evaluation: dict[str, Any] | None, metric: str) -> str:
    if evaluation is None:
        return "–"
    for estimate in evaluation["report"]["estimates"]:
        if estimate["model"] == "candidate" and estimate["metric"] == metric:
            return f"{evaluation['candidate']['variant']}\n{_interval(estimate['interval'])}"
    return evaluation["candidate"]["variant"]
