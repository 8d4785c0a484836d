"""Where a pod may connect to by address: no range opens what hands out a cloud's credentials, and Python agrees."""

import ipaddress
from typing import Any

import pytest

from ml_assets.cli.chart_stops import METADATA_ADDRESSES
from tests.charts.policy import may_reach
from tests.charts.rendering import CHART, RELEASE, Object, installation, only, render

Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def blocks(cidrs: list[str]) -> dict[str, list[str]]:
    """Return range → what is left out of it, as a team's pods may reach them."""
    values = installation(teams=[{"name": "births"}])
    values["network"]["destinations"] = {
        name: {"cidrs": cidrs if name == "objectStorage" else ["192.0.2.1/32"], "ports": [443]}
        for name in ("postgres", "objectStorage", "apiServer")
    }
    policy = only(render(values), "NetworkPolicy", "data", namespace="team-births")
    found = (to["ipBlock"] for rule in policy["spec"]["egress"] for to in rule["to"] if "ipBlock" in to)
    return {block["cidr"]: block.get("except", []) for block in found if block["cidr"] != "192.0.2.1/32"}


def within(cidr: str) -> list[str]:
    """Return what Python says is to be left out: Kubernetes refuses a range that is left out of itself."""
    network = ipaddress.ip_network(cidr, strict=False)
    inside = (a for a in METADATA_ADDRESSES if a.version == network.version and a in network)
    return [f"{a}/{a.max_prefixlen}" for a in inside if network.prefixlen < a.max_prefixlen]


def around(address: Address) -> list[str]:
    """Return ranges of many lengths that hold an address, and as many beside it that differ by one digit."""
    lengths = range(0, address.max_prefixlen + 1, 1 if address.version == 4 else 5)
    others = [(length, int(address) ^ (1 << (address.max_prefixlen - max(1, length)))) for length in lengths]
    return [f"{address}/{length}" for length in lengths] + [f"{type(address)(o)}/{length}" for length, o in others]


def test_no_range_opens_the_metadata_of_a_cloud() -> None:
    asked = [cidr for address in METADATA_ADDRESSES for cidr in around(address)]
    asked += ["::/0", "::1/128", "1::/16", "fd00::/8", "FD00:0EC2::/32", "1:2:3:4:5:6:7:8/128", "1:2:3:4:5:6:7::/112"]

    found = blocks(asked)

    assert found == {cidr: within(cidr) for cidr in asked}
    assert sum(bool(left_out) for left_out in found.values()) > 100


def test_everything_in_halves_is_everything() -> None:
    assert blocks(["0.0.0.0/1", "128.0.0.0/1"]) == {
        "0.0.0.0/1": ["100.100.100.200/32"],
        "128.0.0.0/1": ["169.254.169.254/32", "168.63.129.16/32"],
    }


def test_an_address_that_is_named_alone_is_meant() -> None:
    """As on a cloud whose metadata server gives a pod the credentials of its own account."""
    assert blocks(["169.254.169.254/32"]) == {"169.254.169.254/32": []}


def test_the_check_knows_the_addresses_that_the_template_closes() -> None:
    text = (CHART / "templates" / "_addresses.tpl").read_text(encoding="utf-8")
    _, _, after = text.partition('{{- define "ml-assets.metadata-addresses" -}}')

    assert [ipaddress.ip_address(word) for word in after.partition("{{")[0].split()] == list(METADATA_ADDRESSES)


@pytest.mark.parametrize(
    ("namespace", "labels"),
    [(RELEASE, {"component": "dagster-daemon"}), ("team-births", {"app.kubernetes.io/component": "run_worker"})],
)
def test_a_name_service_on_each_node_can_be_reached(namespace: str, labels: dict[str, str]) -> None:
    """NodeLocal DNSCache answers at an address of the node, which no selector of pods takes."""

    def asked(values: Object) -> list[Any]:
        rules = may_reach(render(values), namespace, labels)
        return [rule["to"] for rule in rules if {"port": 53, "protocol": "UDP"} in rule["ports"]]

    values = installation()
    [[pods]] = asked(values)
    values["network"]["dns"] = {"cidrs": ["169.254.20.10/32"]}

    assert asked(values) == [[pods, {"ipBlock": {"cidr": "169.254.20.10/32"}}]]
