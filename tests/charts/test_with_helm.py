"""The command `helm` makes of the chart what the tests' engine makes, document by document, and stops where it stops.

`ML_ASSETS_TEST_HELM` is the path of a helm, or of several with `:` between: versions 3 and 4 merge values differently.
"""

import json
import os
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.charts.rendering import CHART, FOLDER, RELEASE, Object, chart_with_stand_in, installation, render
from tests.charts.test_stops import STOPS, changed
from tests.charts.test_values import TEXT, WRONG

HELMS = [path for path in os.environ.get("ML_ASSETS_TEST_HELM", "").split(os.pathsep) if path]
OFFICIAL = os.environ.get("ML_ASSETS_TEST_DAGSTER_CHART")
pytestmark = [
    pytest.mark.skipif(not HELMS, reason="ML_ASSETS_TEST_HELM: the path of a helm"),
    pytest.mark.parametrize("helm", HELMS, ids=[f"helm-{n}" for n in range(len(HELMS))]),
]
Values = dict[str, Any]


def _everything() -> Values:
    """Return values with as much set as can be set at once."""
    values = installation(
        image={"repository": "registry.example:5000/a/b", "tag": "2", "digest": "sha256:" + "a" * 64},
        imagePullSecrets=[{"name": "login"}],
        namespacePrefix="ml-",
        secrets=["ml-assets", "more"],
        teamDefaults={
            "quota": {"gpus": 4, "cores": 1.5},
            "codeServer": {"cores": 0.25},
            "environment": {"A": "x", "B": True, "C": 5},
            "serviceAccountAnnotations": {"role": "123"},
        },
        teams=[
            {"name": "on", "quota": {"gpus": 0}, "environment": {"A": "", "B": False, "C": 0, "ROWS": 12_345_678}},
            {"name": "a_b", "image": {"tag": "3"}, "secrets": ["own"], "scratchGib": 1, "module": "x.y"},
        ],
        reaper={"schedule": "0 * * * *"},
    )
    values["network"]["dns"] = {"cidrs": ["169.254.20.10/32"]}
    values["network"]["destinations"]["all"] = {"cidrs": ["0.0.0.0/1", "128.0.0.0/1", "::/0"], "ports": [443]}
    values["network"]["destinations"]["pods"] = {"namespace": "x", "podLabels": {"app": "1"}, "ports": [1, 65535]}
    values["network"]["webserverFrom"] = ["login-proxy", "other"]
    values["dagster"] |= {"enabled": True, "migrate": {"enabled": True}}
    return values


CASES = {
    "the project's": installation,
    "with the official chart's values": lambda: changed(lambda v: v["dagster"].update(enabled=True)),
    "without teams": lambda: installation(teams=[]),
    "many teams": lambda: installation(teams=[{"name": f"team_{n}", "quota": {"gpus": n % 5}} for n in range(50)]),
    "everything": _everything,
}


@pytest.fixture
def chart(tmp_path: Path) -> Path:
    return chart_with_stand_in(tmp_path / "chart")


def run(
    helm: str, *words: str | Path, folder: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run helm without anything of its user's, and with variables of the caller's."""
    variables = {f"HELM_{name}_HOME": str(folder / "helm") for name in ("CACHE", "CONFIG", "DATA")}
    variables |= {"PATH": os.defpath, "HOME": str(folder), "KUBECONFIG": str(folder / "none")} | dict(environment or {})
    command = [helm, *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=120, check=False)


def template(helm: str, chart: Path, text: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run `helm template` as docs/guides/kubernetes.md installs, on the text of a values file."""
    file = folder / "values.yaml"
    file.write_text(text, encoding="utf-8")
    release = (RELEASE, chart, "--namespace", RELEASE, "--kube-version", "1.34.0", "--values", file)
    return run(helm, "template", *release, folder=folder)


def by_name(objects: list[Object]) -> dict[tuple[str, str, str], Object]:
    """Return the objects by kind, namespace and name.

    Values of the official chart that are null are left out: helm 4 shows those of its defaults, 3 does not.
    """
    found = {(o["kind"], o["metadata"].get("namespace", ""), o["metadata"]["name"]): o for o in objects}
    key = ("ConfigMap", RELEASE, "seen")
    if key in found:
        found[key] = found[key] | {"data": _without_nulls(json.loads(found[key]["data"]["values"]))}
    return found


def _without_nulls(values: Any) -> Any:
    if isinstance(values, dict):
        return {key: _without_nulls(value) for key, value in values.items() if value is not None}
    return values


def rendered_by(helm: str, chart: Path, text: str, folder: Path) -> list[Object]:
    result = template(helm, chart, text, folder)
    assert result.returncode == 0, result.stderr
    return [one for one in yaml.safe_load_all(result.stdout) if one is not None]


@pytest.mark.parametrize("case", CASES)
def test_it_makes_the_same_objects(helm: str, case: str, chart: Path, tmp_path: Path) -> None:
    values = CASES[case]()
    ours = render(values, chart)

    theirs = rendered_by(helm, chart, yaml.safe_dump(values), tmp_path)

    assert len(ours) == len(theirs) == len(by_name(ours)) > 5
    assert by_name(theirs) == by_name(ours)


def test_it_reads_the_file_of_the_installation_as_it_stands(helm: str, chart: Path, tmp_path: Path) -> None:
    text = (FOLDER / "values.yaml").read_text(encoding="utf-8")

    assert by_name(rendered_by(helm, chart, text, tmp_path)) == by_name(render(yaml.safe_load(text), chart))


@pytest.mark.skipif(OFFICIAL is None, reason="ML_ASSETS_TEST_DAGSTER_CHART: an unpacked official chart")
def test_it_makes_the_same_of_the_official_chart(helm: str, tmp_path: Path) -> None:
    from tests.charts.test_with_official_chart import with_official_chart

    chart, values = with_official_chart(tmp_path / "chart"), _everything()
    values["network"]["webserverFrom"] = ["login-proxy"]

    theirs = rendered_by(helm, chart, yaml.safe_dump(values), tmp_path)

    assert by_name(theirs) == by_name(render(values, chart))


@pytest.mark.parametrize("stop", STOPS.values(), ids=STOPS)
def test_it_stops_at_the_same_values(helm: str, stop: Any, chart: Path, tmp_path: Path) -> None:
    result = template(helm, chart, yaml.safe_dump(changed(stop.change)), tmp_path)

    assert result.returncode != 0
    assert stop.helm in result.stderr
    assert result.stdout == ""


@pytest.mark.parametrize("wrong", WRONG, ids=[w[2] for w in WRONG])
def test_its_schema_refuses_the_same_values(
    helm: str, wrong: tuple[str, str, str, str, str], chart: Path, tmp_path: Path
) -> None:
    result = template(helm, chart, TEXT.replace(wrong[0], wrong[1]), tmp_path)

    assert result.returncode != 0
    assert "the specifications of the schema(s)" in result.stderr


def test_a_packed_chart_holds_all_that_it_needs(helm: str, chart: Path, tmp_path: Path) -> None:
    """What `.helmignore` leaves out is left out here."""
    packed = run(helm, "package", chart, "--destination", tmp_path, folder=tmp_path)
    assert packed.returncode == 0, packed.stderr
    [archive] = tmp_path.glob("ml-assets-*.tgz")
    text = yaml.safe_dump(_everything())

    assert rendered_by(helm, archive, text, tmp_path) == rendered_by(helm, chart, text, tmp_path)


def test_it_finds_nothing_to_complain_of(helm: str, chart: Path, tmp_path: Path) -> None:
    result = run(helm, "lint", chart, "--strict", "--values", FOLDER / "values.yaml", folder=tmp_path)

    assert result.returncode == 0, result.stdout
    assert "0 chart(s) failed" in result.stdout


def test_it_tells_which_chart_is_missing_before_it_is_fetched(helm: str, tmp_path: Path) -> None:
    """As somebody sees who forgot `helm dependency update`."""
    result = template(helm, CHART, (FOLDER / "values.yaml").read_text(encoding="utf-8"), tmp_path)

    assert result.returncode != 0
    assert "missing in charts/ directory: dagster" in result.stderr
