"""Checks of variants, metrics and gates against the pipeline's task."""

from ml_assets.metrics import METRICS
from ml_assets.reading import wording
from ml_assets.reading.checkpoint_checks import check_checkpoint
from ml_assets.reading.draft import Draft
from ml_assets.reading.estimators import Estimator, EstimatorNotFoundError, find_estimator
from ml_assets.reading.findings import Findings
from ml_assets.reading.search_checks import check_search
from ml_assets.reading.source_checks import check_distinct
from ml_assets.yaml_positions import YamlPath

GATE_KINDS = ("floor", "ceiling", "beats_baseline")


def check_learning(draft: Draft, findings: Findings) -> None:
    """Record what is wrong in `variants`, `selection`, `evaluation.metrics` and `gates`."""
    task = draft.at("label", "task")
    if draft.present("variants"):
        for name in draft.spec.variants:
            _check_variant(draft, name, task, findings)
            known = len(findings.problems)
            check_search(draft, name, findings)
            check_checkpoint(draft, name, findings, is_search_right=len(findings.problems) == known)
    metric = draft.at("selection", "metric")
    if metric is not None:
        _check_metric(("selection", "metric"), metric, task, findings)
    check_distinct(draft, ("evaluation", "metrics"), findings)
    for index, metric in draft.entries("evaluation", "metrics"):
        _check_metric(("evaluation", "metrics", index), metric, task, findings)
    check_distinct(draft, ("gates",), findings)
    for index, gate in draft.entries("gates"):
        _check_gate(draft, ("gates", index), gate, findings)


def _check_metric(path: YamlPath, name: str, task: str | None, findings: Findings) -> None:
    offered = [metric.name for metric in METRICS.values() if task is None or task in metric.tasks]
    if name in offered:
        return
    if name in METRICS:
        tasks = " and ".join(METRICS[name].tasks)
        found = f"the metric {name!r} is defined for {tasks}, and label.task is {task}"
    else:
        found = f"there is no metric {wording.quoted(name)}"
    hint = wording.did_you_mean(name, offered)
    findings.add(path, found, wording.one_of(offered, hint), hint)


def _check_gate(draft: Draft, path: YamlPath, gate: str, findings: Findings) -> None:
    metric, _, kind = gate.rpartition(".")
    if not metric or kind not in GATE_KINDS:
        expected = f"<metric>.{'|'.join(GATE_KINDS)}, such as roc_auc.floor"
        near = wording.did_you_mean(gate, [f"{metric}.{known}" for known in GATE_KINDS]) if metric else ""
        findings.add(path, f"the gate {wording.quoted(gate)}", expected, near)
    elif draft.sound("evaluation", "metrics"):
        metrics = draft.spec.evaluation.metrics
        misspelt = {wording.closest(name, METRICS) for name in metrics if name not in METRICS}
        if metric not in metrics and metric not in misspelt:
            found = f"the gate {wording.quoted(gate)} is on a metric that is not evaluated"
            hint = wording.did_you_mean(metric, metrics)
            if metric in METRICS:
                hint = f"add {metric} to evaluation.metrics"
            findings.add(path, found, f"one of evaluation.metrics: {wording.listed(metrics)}", hint)


def _check_variant(draft: Draft, name: str, task: str | None, findings: Findings) -> None:
    path = ("variants", name, "estimator")
    text = draft.at(*path)
    if text is None:
        return
    try:
        estimator = find_estimator(text)
    except EstimatorNotFoundError as error:
        findings.add(path, error.found, error.expected, error.hint)
        return
    if task is not None:
        _check_task(path, text, estimator, task, findings)
    if draft.at("variants", name, "train") is not None:
        return  # the parameters are the function's
    params = ("variants", name, "params")
    search = draft.spec.variants[name].search if draft.present("variants", name, "search") else None
    space = getattr(search, "space", {})  # absent when it is broken as a whole
    for key in estimator.required if draft.sound(*params) else ():
        if key in draft.spec.variants[name].params:
            continue
        searched = f"estimator.{key}"
        if searched not in space:
            found = f"{estimator.name} needs the parameter {key!r}, which is missing"
            findings.add(params, found, f"a value for {key}")
        elif getattr(space[searched], "when", {}):
            found = f"{estimator.name} needs the parameter {key!r}, which is searched under a condition only"
            findings.add(params, found, f"a value for {key} where the condition does not hold")
    for key, _ in draft.entries(*params):
        if estimator.params is not None and key not in estimator.params:
            found = f"{estimator.name} has no parameter {wording.quoted(key)}"
            hint = wording.did_you_mean(key, estimator.params)
            expected = wording.one_of(estimator.params, hint) if estimator.params else "no parameters"
            findings.add((*params, key), found, expected, hint)


def _check_task(path: YamlPath, text: str, estimator: Estimator, task: str, findings: Findings) -> None:
    wanted = "regressor" if task == "regression" else "classifier"
    if estimator.kind not in {wanted, "unknown"}:
        what = "neither a classifier nor a regressor" if estimator.kind == "neither" else f"a {estimator.kind}"
        found = f"{estimator.name} is {what}"
        findings.add(path, found, f"a {wanted}, since label.task is {task}", _counterpart(text, wanted))
    elif wanted == "classifier" and estimator.has_probabilities is False:
        found = f"{estimator.name} gives no probabilities (it has no predict_proba)"
        findings.add(path, found, "a classifier that does, such as LogisticRegression")


def _counterpart(text: str, wanted: str) -> str:
    """Return "did you mean …?" with the class of the same name for the other task, when there is one."""
    this, other = ("Classifier", "Regressor") if wanted == "regressor" else ("Regressor", "Classifier")
    path = text.removesuffix(this) + other
    try:
        meant = find_estimator(path)
    except EstimatorNotFoundError:
        return ""
    fits = meant.kind == wanted and (wanted == "regressor" or meant.has_probabilities is not False)
    return f"did you mean {path!r}?" if fits else ""
