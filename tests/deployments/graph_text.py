"""An asset graph as text that a reviewer reads line by line: what each asset depends on, and how it may run."""

from collections.abc import Iterator

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph, AssetNode
from dagster._core.definitions.utils import DEFAULT_GROUP_NAME

from ml_assets.compute import CORES_TAG

INTERNAL_TAGS = ("dagster/",)


def keys_text(definitions: dg.Definitions) -> str:
    """Return the sorted asset keys, one a line."""
    keys = sorted(spec.key.to_user_string() for spec in definitions.resolve_all_asset_specs())
    return "".join(f"{key}\n" for key in keys)


def specs_text(definitions: dg.Definitions) -> str:
    """Return a paragraph for each asset, in the order of their keys."""
    graph = definitions.resolve_asset_graph()
    nodes = sorted(graph.asset_nodes, key=lambda node: node.key.to_user_string())
    return "\n".join("".join(f"{line}\n" for line in _paragraph(graph, node)) for node in nodes)


def _paragraph(graph: AssetGraph, node: AssetNode) -> Iterator[str]:
    yield node.key.to_user_string() + (" (external)" if node.is_external else "")
    yield f"  {node.description}"
    yield _line("group", node.group_name if node.group_name != DEFAULT_GROUP_NAME else "")
    yield _line("owners", ", ".join(sorted(node.owners)))
    yield _line("kinds", ", ".join(sorted(node.kinds)))
    tags = {k: v for k, v in node.tags.items() if not k.startswith(INTERNAL_TAGS)}
    yield _line("tags", ", ".join(f"{k}={v}" for k, v in sorted(tags.items())))
    yield _line("partitions", partitions_text(node.partitions_def))
    if node.is_external:
        return
    yield _line("backfill", _backfill(node.backfill_policy))
    yield _line("pool", ", ".join(sorted(node.pools or ())))
    yield _line("cores", str(node.assets_def.op.tags.get(CORES_TAG, "")))
    yield from _block("reads", [_dep(node, parent) for parent in sorted(node.parent_keys, key=str)])
    yield from _block("checks", sorted(_check(graph, key) for key in node.check_keys))


def _line(name: str, value: str) -> str:
    return f"  {name:<12}{value or '–'}"


def _block(name: str, values: list[str]) -> Iterator[str]:
    for i, value in enumerate(values or [""]):
        yield _line("" if i else name, value)


def partitions_text(partitions: dg.PartitionsDefinition | None) -> str:
    """Return partitions in words: schedule and span of time, values of a group."""
    if partitions is None:
        return ""
    if isinstance(partitions, dg.TimeWindowPartitionsDefinition):
        end = f" to before {partitions.end:{partitions.fmt}}" if partitions.end else ", open-ended"
        return f"'{partitions.cron_schedule}' from {partitions.start:{partitions.fmt}}{end}, {partitions.timezone}"
    if isinstance(partitions, dg.MultiPartitionsDefinition):
        dimensions = sorted(partitions.partitions_defs, key=lambda dimension: dimension.name, reverse=True)
        return " × ".join(f"{d.name}: {partitions_text(d.partitions_def)}" for d in dimensions)
    return " ".join(partitions.get_partition_keys())


def _backfill(policy: dg.BackfillPolicy | None) -> str:
    if policy is None or policy.max_partitions_per_run == 1:
        return "one run a partition"
    return "one run for the whole range" if policy.max_partitions_per_run is None else str(policy)


def _dep(node: AssetNode, parent: dg.AssetKey) -> str:
    mapping = node.partition_mappings.get(parent)
    shown = "" if mapping is None else f"  by {mapping!r}"
    return f"{parent.to_user_string()}{shown}"


def _check(graph: AssetGraph, key: dg.AssetCheckKey) -> str:
    check = graph.get(key)
    partitioned = ", by partition" if check.partitions_def is not None else ""
    return f"{key.name}, {'blocking' if check.blocking else 'not blocking'}{partitioned}: {check.description}"
