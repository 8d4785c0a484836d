"""Renders the chart with Helm's own engine, without a cluster or a network."""

import copy
import shutil
from collections.abc import Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import helm_python
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deployments" / "kubernetes"
CHART = FOLDER / "chart"
RELEASE = "ml-assets"
"""Name and namespace of the release."""

Object = dict[str, Any]

_STAND_IN = """\
apiVersion: v1
kind: ConfigMap
metadata: {name: seen, namespace: {{ .Release.Namespace }}}
data:
  values: {{ toJson .Values | quote }}
"""
# Helm lays a part's defaults below ours before it asks our schema: these are there in every installation.
_DEFAULTS = """\
postgresql: {image: {registry: docker.io, tag: "14.6"}, authProvider: {}}
runLauncher: {config: {k8sRunLauncher: {jobNamespace: null, resources: {}, runK8sConfig: {}, securityContext: null}}}
concurrency: {enabled: false, pools: {}}
dagsterWebserver: {livenessProbe: {}, startupProbe: {enabled: false}, nodeSelector: {}}
dagsterDaemon: {runMonitoring: {maxResumeRunAttempts: 0}}
migrate: {enabled: false}
"""


@cache
def _installation() -> str:
    return (FOLDER / "values.yaml").read_text(encoding="utf-8")


def installation(**changes: Any) -> Object:
    """Return the values of the project's installation without the official chart, which is not at hand here."""
    values = yaml.safe_load(_installation())
    values["dagster"]["enabled"] = False
    return values | changes


def render(values: Mapping[str, Any], chart: Path = CHART, *, namespace: str = RELEASE) -> list[Object]:
    """Return the objects that the chart makes of values, after asking its schema."""
    with helm_python.Chart.load(str(chart)) as loaded:
        loaded.validate_schema(dict(values))
        files = loaded.render(copy.deepcopy(dict(values)), name=RELEASE, namespace=namespace)
    texts = (text for path, text in sorted(files.items()) if not path.endswith("NOTES.txt"))
    return [found for text in texts for found in yaml.safe_load_all(text) if found is not None]


@cache
def _rendered() -> list[Object]:
    return render(installation())


def rendered() -> list[Object]:
    """Return the objects of the project's installation."""
    return copy.deepcopy(_rendered())


def chart_with_stand_in(folder: Path) -> Path:
    """Write our chart to a folder, with a part that only shows which values the official chart would get."""
    chart = Path(shutil.copytree(CHART, folder))
    part = chart / "charts" / "dagster"
    (part / "templates").mkdir(parents=True)
    (part / "Chart.yaml").write_text("apiVersion: v2\nname: dagster\nversion: 1.13.27\n", encoding="utf-8")
    (part / "values.yaml").write_text(_DEFAULTS, encoding="utf-8")
    (part / "templates" / "seen.yaml").write_text(_STAND_IN, encoding="utf-8")
    return chart


def of(objects: list[Object], kind: str, name: str | None = None, *, namespace: str | None = None) -> list[Object]:
    """Return the objects of a kind, of a name and a namespace when they are given."""
    return [
        one
        for one in objects
        if one["kind"] == kind
        and name in {None, one["metadata"]["name"]}
        and namespace in {None, one["metadata"].get("namespace")}
    ]


def only(objects: list[Object], kind: str, name: str, *, namespace: str | None = None) -> Object:
    """Return the one object of a kind and name."""
    [found] = of(objects, kind, name, namespace=namespace)
    return found


def pod_specs(objects: list[Object]) -> Iterator[tuple[str, Object]]:
    """Yield (what it is, the pod's spec) of each object that makes pods."""
    for one in objects:
        spec = one.get("spec") or {}
        template = spec.get("template") or (spec.get("jobTemplate") or {}).get("spec", {}).get("template")
        if template is not None:
            yield f"{one['metadata']['namespace']}/{one['kind']}/{one['metadata']['name']}", template["spec"]


def dagster_yaml(objects: list[Object], namespace: str) -> Object:
    """Return Dagster's instance configuration in a namespace."""
    return yaml.safe_load(only(objects, "ConfigMap", "dagster-instance", namespace=namespace)["data"]["dagster.yaml"])
