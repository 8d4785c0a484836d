"""What the chart's templates would stop at, told by line before Helm is asked: values that no schema can compare."""

import ipaddress
from collections.abc import Iterator

from ml_assets.cli.chart_values import ChartValues
from ml_assets.errors import Problem
from ml_assets.yaml_positions import YamlPath

METADATA_ADDRESSES = tuple(
    ipaddress.ip_address(address)
    for address in (
        "169.254.169.254",
        "168.63.129.16",
        "100.100.100.200",
        "fd00:ec2::254",
        "fd20:ce::254",
        "fd00:c1::a9fe:a9fe",
    )
)
"""Where clouds hand out the credentials of the machine; the chart leaves them out of wider ranges."""
_METADATA = frozenset(ipaddress.ip_network(address) for address in METADATA_ADDRESSES)
_UNITS = ("cores", "memoryGib")
_PROBES = ("startupProbe", "readinessProbe", "livenessProbe")


def stop_problems(values: ChartValues, *, namespace: str) -> list[Problem]:
    """Return what would stop `helm upgrade` before it has changed anything.

    Args:
        values: Values without problems of form.
        namespace: The release's namespace.
    """
    return [
        *_namespace_problems(values, namespace),
        *_size_problems(values),
        *_image_problems(values),
        *_network_problems(values, namespace),
        *_probe_problems(values),
    ]


def stop_warnings(values: ChartValues) -> list[Problem]:
    """Return what is allowed and opens more than it seems to: metadata of a cloud that is named by itself."""
    return [
        values.problem(
            ("network", "destinations", name, "cidrs", index),
            f"{cidr}, where a cloud hands out credentials of the machine",
            "it only where the cloud gives pods their own credentials there",
        )
        for name, destination in values.merged["network"]["destinations"].items()
        for index, cidr in enumerate(destination.get("cidrs", ()))
        if _network(cidr) in _METADATA
    ]


def _namespace_of(values: ChartValues, team: str) -> str:
    return values.merged["namespacePrefix"] + team.replace("_", "-")


def _namespace_problems(values: ChartValues, release: str) -> Iterator[Problem]:
    listed = [entry["name"] for entry in values.merged["teams"]]
    for index, name in enumerate(listed):
        if name in listed[:index]:
            yield values.problem(("teams", index, "name"), f"the team {name!r} a second time", "each team once")
            continue
        found, whose = _namespace_of(values, name), ""
        if found == release:
            whose = "the release's own"
        elif found.startswith("kube-") or found == "default":
            whose = "Kubernetes' own"
        if whose:
            told = f"the team {name!r}, whose namespace would be {found}, {whose}"
            yield values.problem(("teams", index, "name"), told, "a namespace of its own; set `namespacePrefix`")


def _size_problems(values: ChartValues) -> Iterator[Problem]:
    teams = values.teams()
    for index, team in enumerate(entry["name"] for entry in values.merged["teams"]):
        entry = teams[team]
        for what in ("codeServer", "runWorker"):
            for unit in _UNITS:
                size, most = entry[what][unit], entry["largestStep"][unit]
                if size > most:
                    yield values.problem(
                        ("teams", index, what, unit),
                        f"{size:g} for {team}",
                        f"at most {most:g}, the {unit} of its largestStep",
                    )


def _image_problems(values: ChartValues) -> Iterator[Problem]:
    """Yield each team whose own image takes away a part of everybody's."""
    for index, entry in enumerate(values.merged["teams"]):
        image = dict(values.merged["image"])
        for own in (values.merged["teamDefaults"]["image"], entry.get("image") or {}):
            image |= ({"digest": ""} if own.get("tag") else {}) | own
        if not (image["repository"] and (image.get("tag") or image.get("digest"))):
            yield values.problem(
                ("teams", index, "image"),
                f"an image without a {'version' if image['repository'] else 'name'} for {entry['name']}",
                "a `repository`, and a `tag` or `digest`; leave out what is as in `image`",
            )


def _network_problems(values: ChartValues, release: str) -> Iterator[Problem]:
    network = values.merged["network"]
    closed = {release, *(_namespace_of(values, entry["name"]) for entry in values.merged["teams"])}
    for name, destination in network["destinations"].items():
        place = ("network", "destinations", name)
        if destination.get("namespace") in closed:
            yield values.problem(
                (*place, "namespace"),
                f"{destination['namespace']!r}, which the chart closes to connections",
                "a namespace that is neither the release's nor a team's",
            )
        for index, cidr in enumerate(destination.get("cidrs", ())):
            yield from _range_problems(values, (*place, "cidrs", index), cidr)
    for index, cidr in enumerate(network["dns"].get("cidrs", ())):
        yield from _range_problems(values, ("network", "dns", "cidrs", index), cidr)
    for index, namespace in enumerate(network["webserverFrom"]):
        if namespace in closed:
            yield values.problem(
                ("network", "webserverFrom", index),
                f"{namespace!r}, out of which the chart lets nothing to the webserver",
                "a namespace that is neither the release's nor a team's",
            )


def _range_problems(values: ChartValues, place: YamlPath, cidr: str) -> Iterator[Problem]:
    if _network(cidr) is None:
        yield values.problem(place, f"{cidr!r}, which is no address range", "one such as 10.20.0.10/32 or fd00::/64")


def _network(cidr: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(cidr, strict=False)
    except ValueError:
        return None


def _probe_problems(values: ChartValues) -> Iterator[Problem]:
    web = values.merged["dagster"]["dagsterWebserver"]
    prefix = web.get("pathPrefix")
    if not (values.merged["dagster"]["enabled"] and prefix):
        return
    for probe in _PROBES:
        path = ((web.get(probe) or {}).get("httpGet") or {}).get("path")
        if path and not path.startswith(prefix):
            yield values.problem(
                ("dagster", "dagsterWebserver", probe),
                f"httpGet.path {path!r}, which a webserver with the pathPrefix {prefix} has not",
                f"httpGet.path: {prefix}/server_info",
            )
