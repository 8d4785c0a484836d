"""Wrong values are refused with their place, by Helm and by `ml-assets deploy check` alike; words for each."""

import helm_python
import pytest

from ml_assets.cli.chart_values import form_problems, read_chart_values
from tests.charts.rendering import CHART, FOLDER, ROOT

TEXT = (FOLDER / "values.yaml").read_text(encoding="utf-8")

WRONG: list[tuple[str, str, str, str, str]] = [
    # what stands there, what is put in its place, the field, how its line begins, what is told
    (
        "- name: births",
        "- name: Births!",
        "teams[1].name",
        "- name: Births!",
        "a name of lower-case letters, digits and underscores",
    ),
    ("- name: births", "- nam: births", "teams[1].nam", "- nam: births", "did you mean 'name'?"),
    ("\nteams:", "\nteems:", "teems", "teems:", "did you mean 'teams'?"),
    (
        "gpus: 2",
        "gpus: two",
        "teams[0].quota.gpus",
        "quota:",
        "'two' (text); expected a whole number from 0 to 100,000",
    ),
    ("gpus: 2", "gpus: 0.5", "teams[0].quota.gpus", "quota:", "0.5 (number); expected a whole number"),
    ("gpus: 2", "gpu: 2", "teams[0].quota.gpu", "quota:", "did you mean 'gpus'?"),
    ('  tag: "0.1.0"\n\n', "  tag: latest\n\n", "image.tag", "tag: latest", "a fixed version; `latest` is none"),
    ('  tag: "0.1.0"\n\n', "\n", "image", "image:", "a `tag` with a fixed version, or a `digest`"),
    (
        "ML_ASSETS_ANCHOR:",
        "ML_ASSETS_LEDGER:",
        "environment.ML_ASSETS_LEDGER",
        "ML_ASSETS_LEDGER:",
        "secrets belong into a Secret",
    ),
    ("ML_ASSETS_ANCHOR:", "MY_TOKEN:", "environment.MY_TOKEN", "MY_TOKEN:", "secrets belong into a Secret"),
    (
        "ML_ASSETS_DATA: s3:",
        "ML_ASSETS_DATE: s3:",
        "environment.ML_ASSETS_DATA",
        "environment:",
        "nothing; expected an fsspec URL",
    ),
    (
        "//mlflow.mlflow.svc",
        "//me:pass@mlflow",
        "environment.MLFLOW_TRACKING_URI",
        "MLFLOW_TRACKING_URI:",
        "without a password",
    ),
    ("10.20.0.10/32", "10.20.0.10", "network.destinations.postgres.cidrs[0]", "postgres:", "an address range such as"),
    (
        "apiServer: {c",
        "apiSrver: {c",
        "network.destinations.apiServer",
        "destinations:",
        "nothing; expected either `cidrs`",
    ),
    ("{namespace: mlflow, p", "{p", "network.destinations.mlflow", "mlflow:", "either `cidrs` or `namespace`"),
    (
        "postgresqlHost: postgres.example",
        'postgresqlHost: ""',
        "dagster.postgresql.postgresqlHost",
        "postgresqlHost:",
        "the name or address",
    ),
    (
        "postgresqlHost:",
        "enabled: true\n    postgresqlHost:",
        "dagster.postgresql.enabled",
        "enabled:",
        "expected false",
    ),
    (
        "dagster:\n",
        "dagster:\n  runLauncher: {config: {k8sRunLauncher: {image: {repository: x, tag: y}}}}\n",
        "dagster.runLauncher.config.k8sRunLauncher",
        "runLauncher:",
        "they would reach the pods of steps too",
    ),
    (
        "postgresqlHost:",
        "image: {digest: sha256}\n    postgresqlHost:",
        "dagster.postgresql.image.digest",
        "image:",
        "an unknown field",
    ),
    (
        "postgresqlHost:",
        "image: {repository: library/postgres, registry: null, tag: '17.6'}\n    postgresqlHost:",
        "dagster.postgresql.image.registry",
        "image:",
        "the host of an image registry",
    ),
    (
        "dagster:\n",
        "dagster:\n  concurrency: {enabled: true}\n",
        "dagster.concurrency.enabled",
        "concurrency:",
        "false; limits stand in `dagster.additionalInstanceConfig.concurrency`",
    ),
    (
        "dagsterDaemon:\n",
        "dagsterDaemon:\n    runMonitoring: {maxResumeRunAttempts: 0}\n",
        "dagster.dagsterDaemon.runMonitoring.maxResumeRunAttempts",
        "runMonitoring:",
        "a whole number of at least 1",
    ),
    ("secrets: [ml-assets]", "secrets: [ML_ASSETS]", "secrets[0]", "secrets:", "a Kubernetes name"),
    ("secrets: [ml-assets]", "reaper: {schedule: hourly}", "reaper.schedule", "reaper:", "five fields of cron"),
]


@pytest.mark.parametrize(("before", "after", "field", "line", "told"), WRONG, ids=[w[2] for w in WRONG])
def test_a_wrong_value_is_told_with_its_place(before: str, after: str, field: str, line: str, told: str) -> None:
    assert TEXT.count(before) == 1
    text = TEXT.replace(before, after)
    values = read_chart_values(ROOT, text=text)

    problems = [problem for problem in form_problems(values) if problem.field == field]

    assert len(problems) == 1, [str(problem) for problem in form_problems(values)]
    assert told in str(problems[0])
    assert text.splitlines()[problems[0].line - 1].strip().startswith(line)
    with helm_python.Chart.load(str(CHART)) as chart, pytest.raises(helm_python.HelmValuesError):
        chart.validate_schema(dict(values.document.data))


def test_the_projects_own_values_have_no_problem() -> None:
    assert form_problems(read_chart_values(ROOT)) == []


def test_all_problems_are_told_in_the_order_of_the_file() -> None:
    text = TEXT.replace("gpus: 2", "gpus: two").replace("10.20.0.10/32", "here").replace("s3://landing-example", "here")

    lines = [problem.line for problem in form_problems(read_chart_values(ROOT, text=text))]

    assert len(lines) == 3
    assert lines == sorted(lines)
