"""The official Dagster chart as a part of ours: switched and fed rightly, and itself where it is at hand."""

import json
import os
import re
import shutil
from pathlib import Path
from typing import Any

import helm_python
import pytest

from tests.charts.rendering import CHART, RELEASE, Object, dagster_yaml, installation, of, only, pod_specs, render

OFFICIAL = os.environ.get("ML_ASSETS_TEST_DAGSTER_CHART")
STAND_IN = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: seen, namespace: {{ .Release.Namespace }}}
data:
  values: {{ toJson .Values | quote }}
"""


@pytest.fixture
def with_stand_in(tmp_path: Path) -> Path:
    """Return our chart with a part that only shows which values the official chart would get."""
    chart = tmp_path / "chart"
    shutil.copytree(CHART, chart)
    part = chart / "charts" / "dagster"
    (part / "templates").mkdir(parents=True)
    (part / "Chart.yaml").write_text("apiVersion: v2\nname: dagster\nversion: 1.13.27\n", encoding="utf-8")
    (part / "templates" / "seen.yaml").write_text(STAND_IN, encoding="utf-8")
    return chart


def seen(chart: Path, **dagster: Any) -> Object:
    values = installation()
    values["dagster"] |= dagster
    return json.loads(only(render(values, chart), "ConfigMap", "seen")["data"]["values"])


def test_the_official_chart_gets_what_ours_relies_on(with_stand_in: Path) -> None:
    values = seen(with_stand_in, enabled=True)

    assert values["postgresql"]["postgresqlHost"] == "postgres.example"
    assert values["postgresql"]["enabled"] is False
    assert values["global"]["fullnameOverride"] == "dagster"
    assert values["global"]["serviceAccountName"] == "dagster"
    assert (values["rbacEnabled"], values["serviceAccount"]["create"]) == (False, False)
    assert values["dagster-user-deployments"] == {"enabled": True, "enableSubchart": False}
    assert values["dagsterWebserver"]["workspace"]["externalConfigmap"] == "ml-assets-workspace"
    assert values["dagsterDaemon"]["image"]["tag"] == "0.1.0"
    for program in ("dagsterWebserver", "dagsterDaemon"):
        assert values[program]["podSecurityContext"]["runAsNonRoot"] is True
        assert values[program]["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert set(values[program]["resources"]) == {"requests", "limits"}
        home = {"name": "home", "mountPath": values["global"]["dagsterHome"]}
        assert home in values[program]["volumeMounts"]


def test_it_can_be_left_out(with_stand_in: Path) -> None:
    assert of(render(installation(), with_stand_in), "ConfigMap", "seen") == []


def test_it_is_a_part_unless_somebody_says_otherwise() -> None:
    with helm_python.Chart.load(str(CHART)) as chart:
        assert chart.values["dagster"]["enabled"] is True
    [part] = helm_python.dependency_list(str(CHART))
    assert (part["name"], part["version"]) == ("dagster", "1.13.27")


@pytest.mark.skipif(OFFICIAL is None, reason="ML_ASSETS_TEST_DAGSTER_CHART: an unpacked official chart")
def test_with_the_official_chart_both_write_the_same_instance(tmp_path: Path) -> None:
    """What webserver and daemon read is what people read in their teams' namespaces."""
    chart = tmp_path / "chart"
    shutil.copytree(CHART, chart)
    part = Path(shutil.copytree(str(OFFICIAL), chart / "charts" / "dagster"))
    for schema in part.rglob("values.schema.json"):
        if re.search(r'"\$ref": *"https?://', schema.read_text(encoding="utf-8")):
            schema.unlink()  # it refers to addresses on the network, which Helm would ask
    values = installation()
    values["dagster"]["enabled"] = True

    objects = render(values, chart)

    for one in objects:
        one["metadata"].setdefault("namespace", RELEASE)
    assert dagster_yaml(objects, "team-births") == dagster_yaml(objects, RELEASE)
    programs = {what: spec for what, spec in pod_specs(objects) if what.startswith(f"{RELEASE}/Deployment/")}
    assert len(programs) == 2
    for what, spec in programs.items():
        assert spec["serviceAccountName"] == "dagster", what
        assert spec["securityContext"]["runAsNonRoot"] is True, what
        assert all(c["securityContext"]["readOnlyRootFilesystem"] for c in spec["containers"]), what
        assert any("/dagster-workspace/workspace.yaml" in str(c["command"]) for c in spec["containers"]), what
