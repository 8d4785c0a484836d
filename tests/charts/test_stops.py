"""What stops Helm's rendering is told by `ml-assets deploy check` first, each of it: with its place, all at once."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import helm_python
import pytest
import yaml

from ml_assets.cli.chart_stops import stop_problems, stop_warnings
from ml_assets.cli.chart_values import ChartValues, form_problems, read_chart_values
from tests.charts.rendering import CHART, RELEASE, ROOT, installation, render

Values = dict[str, Any]
WITH_PREFIX = {"pathPrefix": "/ui", "image": {"repository": "registry.example/ml-assets", "tag": "0.1.0"}}
EVERYWHERE = ["postgres", "objectStorage", "apiServer"]


@dataclass(frozen=True, kw_only=True)
class Stop:
    """Values that no schema refuses and no installation can have.

    Attributes:
        change: Makes them of the project's.
        helm: What Helm's error says.
        field: Where the check finds it.
        check: What it says there.
    """

    change: Callable[[Values], Any]
    helm: str
    field: str
    check: str


def destination(**what: Any) -> Callable[[Values], Any]:
    return lambda v: v["network"]["destinations"].update(objectStorage={"ports": [443]} | what)


STOPS = {
    "twice": Stop(
        change=lambda v: v.update(teams=[{"name": "births"}, {"name": "births"}]),
        helm='teams: "births" and "births" would share the namespace team-births',
        field="teams[1].name",
        check="the team 'births' a second time; expected each team once",
    ),
    "the release's": Stop(
        change=lambda v: v.update(namespacePrefix="", teams=[{"name": "births"}, {"name": "ml_assets"}]),
        helm='the namespace of "ml_assets" is the release\'s own, ml-assets',
        field="teams[1].name",
        check="the team 'ml_assets', whose namespace would be ml-assets, the release's own; expected a",
    ),
    "Kubernetes' by prefix": Stop(
        change=lambda v: v.update(namespacePrefix="kube-", teams=[{"name": "system"}]),
        helm='the namespace of "system" is kube-system, which is Kubernetes\' own; set namespacePrefix',
        field="teams[0].name",
        check="the team 'system', whose namespace would be kube-system, Kubernetes' own",
    ),
    "Kubernetes' by name": Stop(
        change=lambda v: v.update(namespacePrefix="", teams=[{"name": "default"}]),
        helm='the namespace of "default" is default, which is Kubernetes\' own',
        field="teams[0].name",
        check="the team 'default', whose namespace would be default, Kubernetes' own",
    ),
    "run worker": Stop(
        change=lambda v: v["teams"][0].update(runWorker={"cores": 16}),
        helm='runWorker.cores of "flights" is 16; expected at most largestStep.cores, 8',
        field="teams[0].runWorker.cores",
        check="16 for flights; expected at most 8, the cores of its largestStep",
    ),
    "code server": Stop(
        change=lambda v: v.update(teamDefaults={"codeServer": {"memoryGib": 100}}),
        helm='codeServer.memoryGib of "flights" is 100; expected at most largestStep.memoryGib, 64',
        field="teams[0].codeServer.memoryGib",
        check="100 for flights; expected at most 64, the memoryGib of its largestStep",
    ),
    "no name": Stop(
        change=lambda v: v["teams"][1].update(image={"repository": ""}),
        helm='the image of "births" is without a name or a version',
        field="teams[1].image",
        check="an image without a name for births; expected a `repository`, and a `tag` or `digest`",
    ),
    "no version": Stop(
        change=lambda v: v.update(teamDefaults={"image": {"tag": ""}}),
        helm='the image of "flights" is without a name or a version',
        field="teams[0].image",
        check="an image without a version for flights",
    ),
    "closed, the release's": Stop(
        change=destination(namespace=RELEASE),
        helm="network.destinations.objectStorage: the chart closes the namespace ml-assets to connections",
        field="network.destinations.objectStorage.namespace",
        check="'ml-assets', which the chart closes to connections; expected a namespace that is neither the release's",
    ),
    "closed, a team's": Stop(
        change=destination(namespace="team-births"),
        helm="network.destinations.objectStorage: the chart closes the namespace team-births to connections",
        field="network.destinations.objectStorage.namespace",
        check="'team-births', which the chart closes to connections",
    ),
    "proxy": Stop(
        change=lambda v: v["network"].update(webserverFrom=["login-proxy", "team-births"]),
        helm="network.webserverFrom: the chart lets nothing out of the namespace team-births to the webserver",
        field="network.webserverFrom[1]",
        check="'team-births', out of which the chart lets nothing to the webserver",
    ),
    "no address": Stop(
        change=destination(cidrs=["10.0.0.0/8", "1::2::3/64"]),
        helm='network: "1::2::3" is no address; expected one such as 10.20.0.10 or fd00::10',
        field="network.destinations.objectStorage.cidrs[1]",
        check="'1::2::3/64', which is no address range; expected one such as 10.20.0.10/32",
    ),
    "no address of a name service": Stop(
        change=lambda v: v["network"].update(dns={"cidrs": [":::/0"]}),
        helm='network: ":::" is no address',
        field="network.dns.cidrs[0]",
        check="':::/0', which is no address range",
    ),
    "probe": Stop(
        change=lambda v: v["dagster"].update(enabled=True, dagsterWebserver=WITH_PREFIX),
        helm="dagster.dagsterWebserver.startupProbe: it asks for /server_info, which a webserver with the pathPrefix "
        "/ui has not; expected httpGet.path: /ui/server_info",
        field="dagster.dagsterWebserver.startupProbe",
        check="httpGet.path '/server_info', which a webserver with the pathPrefix /ui has not; expected httpGet",
    ),
}
TOLD_BY_THE_SCHEMA = {
    "network.destinations: %s is missing; expected its address ranges, or its namespace and pods",
    "image: expected `repository`, and `tag` or `digest`",
    "dagster.postgresql.postgresqlHost: expected the host of the PostgreSQL server",
}
"""Stops that are reached only where somebody has Helm skip the schema."""


def changed(change: Callable[[Values], Any]) -> Values:
    values = installation()
    change(values)
    return values


def read(values: Values) -> ChartValues:
    return read_chart_values(ROOT, text=yaml.safe_dump(values, sort_keys=False))


def _stopped(stop: Stop) -> str:
    """Return what Helm says to the values of a stop."""
    with pytest.raises(helm_python.HelmRenderError) as error:
        render(changed(stop.change))
    return str(error.value)


@pytest.mark.parametrize("stop", STOPS.values(), ids=STOPS)
def test_what_stops_helm_is_told_before(stop: Stop) -> None:
    assert stop.helm in _stopped(stop)

    values = changed(stop.change)
    assert form_problems(read(values)) == []
    [told] = [p for p in stop_problems(read(values), namespace=RELEASE) if p.field == stop.field]
    assert stop.check in str(told)


def test_no_stop_of_the_templates_is_left_out() -> None:
    """A stop that is added to a template needs a line above, and so a check."""
    texts = "".join(path.read_text(encoding="utf-8") for path in sorted((CHART / "templates").iterdir()))
    stops = re.findall(r'(?:fail \(printf|fail|required) "((?:[^"\\]|\\.)*)"', texts)

    assert len(stops) == len(re.findall(r"\{\{-? *fail\b|\brequired\b", texts))
    assert set(stops) >= TOLD_BY_THE_SCHEMA
    messages = [_stopped(stop) for stop in STOPS.values()]
    for text in set(stops) - TOLD_BY_THE_SCHEMA:
        pattern = re.sub(r"%[qsvd]", ".*", re.escape(text))
        assert any(re.search(pattern, message) for message in messages), text


@pytest.mark.parametrize("name", EVERYWHERE)
def test_a_destination_that_everybody_needs_is_told_by_the_schema(name: str) -> None:
    values = changed(lambda v: v["network"]["destinations"].pop(name))

    assert [problem.field for problem in form_problems(read(values))] == [f"network.destinations.{name}"]


def test_the_projects_own_values_stop_nothing() -> None:
    assert stop_problems(read_chart_values(ROOT), namespace=RELEASE) == []
    assert stop_warnings(read_chart_values(ROOT)) == []


def test_all_stops_are_told_at_once() -> None:
    values = installation()
    for name in ("run worker", "proxy", "no address"):
        STOPS[name].change(values)

    assert len(stop_problems(read(values), namespace=RELEASE)) == 3


def test_another_release_has_another_namespace_of_its_own() -> None:
    values = read(changed(lambda v: v.update(namespacePrefix="")))

    assert stop_problems(values, namespace=RELEASE) == []
    [told] = stop_problems(values, namespace="births")
    assert "whose namespace would be births, the release's own" in str(told)


def test_the_metadata_of_a_cloud_by_itself_is_a_warning() -> None:
    values = changed(destination(cidrs=["0.0.0.0/0", "169.254.169.254/32", "::/0", "no"]))

    [told] = stop_warnings(read(values))

    assert told.field == "network.destinations.objectStorage.cidrs[1]"
    assert "169.254.169.254/32, where a cloud hands out credentials of the machine" in str(told)
