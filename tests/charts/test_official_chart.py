"""The official Dagster chart as a part of ours: switched and fed rightly. A stand-in shows which values it gets."""

import json
from pathlib import Path
from typing import Any

import helm_python
import pytest

from tests.charts.rendering import CHART, Object, chart_with_stand_in, installation, of, only, render


@pytest.fixture
def with_stand_in(tmp_path: Path) -> Path:
    return chart_with_stand_in(tmp_path / "chart")


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
    assert values["dagsterDaemon"]["runMonitoring"]["maxResumeRunAttempts"] == 1
    image = {"registry": "docker.io", "repository": "library/postgres", "tag": "17.6", "pullPolicy": "IfNotPresent"}
    assert values["postgresql"]["image"] == image
    for program in ("dagsterWebserver", "dagsterDaemon"):
        assert values[program]["podSecurityContext"]["runAsNonRoot"] is True
        assert values[program]["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert set(values[program]["resources"]) == {"requests", "limits"}
        assert set(values[program]["initContainerResources"]) == {"requests", "limits"}
        home = {"name": "home", "mountPath": values["global"]["dagsterHome"]}
        assert home in values[program]["volumeMounts"]


def test_it_can_be_left_out(with_stand_in: Path) -> None:
    assert of(render(installation(), with_stand_in), "ConfigMap", "seen") == []


def test_it_is_a_part_unless_somebody_says_otherwise() -> None:
    with helm_python.Chart.load(str(CHART)) as chart:
        assert chart.values["dagster"]["enabled"] is True
    [part] = helm_python.dependency_list(str(CHART))
    assert (part["name"], part["version"]) == ("dagster", "1.13.27")


def test_a_migration_may_reach_the_database_while_it_is_asked_for(with_stand_in: Path) -> None:
    """The official Job's pods have no label of their own, and all that is not named is closed."""
    values = installation()
    values["dagster"] |= {"enabled": True, "migrate": {"enabled": True}}
    spec = only(render(values, with_stand_in), "NetworkPolicy", "migration", namespace="ml-assets")["spec"]

    job = {"batch.kubernetes.io/job-name": "ml-assets-dagster-webserver-instance-migrate"}
    assert spec["podSelector"] == {"matchLabels": job}
    assert {"ipBlock": {"cidr": "10.20.0.10/32"}} in [to for rule in spec["egress"] for to in rule["to"]]
    values["dagster"]["migrate"]["enabled"] = False
    assert of(render(values, with_stand_in), "NetworkPolicy", "migration") == []
