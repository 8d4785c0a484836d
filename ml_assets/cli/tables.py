"""Tables of the command line: what each period's gates, variants and decision say."""

from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

from ml_assets.errors import MlAssetsError
from ml_assets.interfaces import Decision, Verdict
from ml_assets.periods import join_partition
from ml_assets.reading.pipeline_file import LoadedPipeline
from ml_assets.stages.champions import latest_by_partition
from ml_assets.stages.step import Services, Step, gates_of
from ml_assets.texts import visible_text

UNBOUND_WIDTH = 110
COLOURS = {
    "promoted": "green",
    "kept": "cyan",
    "undecided": "yellow",
    "refused": "red",
    "awaiting_approval": "magenta",
    "rejected": "red",
    "rolled_back": "red",
}


def make_console() -> Console:
    """Return the console: as wide as the terminal, or wide enough for the tables when there is none."""
    console = Console()
    return console if console.is_terminal else Console(width=UNBOUND_WIDTH)


def plain(words: str, style: str = "") -> Text:
    """Return text for a cell as it is: what others wrote is never taken for markup, or for commands to the terminal."""
    return Text(visible_text(words, keep="\n"), style=style)


def add_row(table: Table, *cells: str) -> None:
    """Add a row of plain text; see `plain`."""
    table.add_row(*map(plain, cells))


def summary(services: Services, loaded: LoadedPipeline, periods: list[str]) -> Table:
    """Return a row for each period: rows, checks, each variant and the candidate with intervals, decision, version."""
    spec = loaded.spec
    table = Table(
        title=f"{spec.team}/{spec.name}", title_justify="left", title_style="bold", header_style="bold", box=SIMPLE_HEAD
    )
    table.caption = (
        f"{spec.selection.metric} with {spec.evaluation.confidence:.0%} intervals over whole days: each variant on its "
        "validation rows; → the candidate, fitted again, on the period's own untouched rows."
    )
    table.caption_justify = "left"
    table.add_column("partition", no_wrap=True)
    table.add_column("rows", justify="right", no_wrap=True)
    table.add_column("checks")
    table.add_column(f"models by {spec.selection.metric}", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for period in periods:
        table.add_row(*_row(services, loaded, period))
    return table


def short_reason(decision: Decision) -> str:
    """Return the shortest true reason of a decision, for a line or a cell."""
    if decision.outcome == "refused" and decision.reason.startswith("superseded"):
        return decision.reason
    if "gates" in decision.evidence:
        return ", ".join(decision.evidence["gates"])
    reasons = decision.evidence.get("approval_reasons", [])
    if decision.outcome == "awaiting_approval":
        return "; ".join(reasons)
    if decision.outcome == "promoted":
        return f"approved by {decision.decided_by}" if reasons else "nothing is materially different"
    return decision.reason


def _row(services: Services, loaded: LoadedPipeline, period: str) -> list[Text | str]:
    spec = loaded.spec
    path = (spec.team, spec.name)
    step = Step(pipeline=loaded, services=services, partition=period, run_id="")
    stored = [services.data_store.describe((*path, "features"), p) for p in step.group_partitions(period)]
    rows = sum(s.n_rows for s in stored if s is not None)
    decision = latest_by_partition(services.ledger.decisions(path)).get(period)
    verdict = plain("–", style="dim")
    if decision is not None:
        version = f"\nversion {decision.model_version}" if decision.model_version else ""
        verdict = plain(f"{decision.outcome.replace('_', ' ')}{version}", style=COLOURS[decision.outcome])
    return [period, f"{rows:,}" if any(stored) else "–", _checks(step), _models(step), verdict]


def _models(step: Step) -> Text:
    """Return a line for each variant and one for the candidate."""
    metric, services = step.spec.selection.metric, step.services
    lines: list[tuple[str, dict[str, Any]]] = []
    for variant in step.spec.variants:
        model = _document(services, step.asset("models", variant), step.time)
        if model is not None:
            lines.append((variant, model["validation"][metric]))
    evaluation = _document(services, step.asset("evaluation"), step.time)
    if evaluation is not None:
        name, interval = _test(evaluation, metric)
        lines.append((f"→ {name}", interval))
    if not lines:
        return plain("–", style="dim")
    width = max(len(name) for name, _ in lines)
    return plain("\n".join(f"{name:<{width}}  {_interval(values)}" for name, values in lines))


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
        return plain("–", style="dim")
    if not _judged_now(step):
        return plain(
            f"{sum(v.outcome == 'passed' for v in verdicts)}/{len(verdicts)} passed\nevaluation not judged\n"
            "by today's policy",
            style="yellow",
        )
    failed = [v for v in verdicts if v.outcome == "failed"]
    closed = [v for v in failed if v.severity == "error"]
    text = f"{len(verdicts) - len(failed)}/{len(verdicts)} passed"
    if failed:
        text += "\n" + "\n".join(sorted({v.check for v in failed}))
    return plain(text, style="red" if closed else "yellow" if failed else "green")


def _judged_now(step: Step) -> bool:
    """Whether the evaluation, when there is one, has verdicts under the policy as it is now."""
    if step.services.data_store.describe(step.asset("evaluation"), step.time) is None or not step.spec.gates:
        return True
    return bool(_verdicts(step, "evaluation", step.time))


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


def _test(evaluation: dict[str, Any], metric: str) -> tuple[str, dict[str, Any]]:
    """Return the candidate's variant and its metric on the period's own rows."""
    found = [
        e["interval"] for e in evaluation["report"]["estimates"] if (e["model"], e["metric"]) == ("candidate", metric)
    ]
    return evaluation["candidate"]["variant"], found[0]
