"""`ml-assets ledger`: whether the ledger still holds what was recorded, and anchors outside of it."""

import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import click

from ml_assets.chain import AnchorStore, check_anchor
from ml_assets.cli.project import load_project
from ml_assets.errors import LedgerError
from ml_assets.interfaces import ChainHead, ChainProblem, PipelinePath

_MOST_SHOWN = 200


@click.group()
def ledger() -> None:
    """Verify the ledger's hash chains, and anchor their ends outside of it."""


@ledger.command()
@click.argument("pipeline", metavar="[TEAM/PIPELINE]", required=False)
@click.option("--anchor", "url", metavar="URL", help="Folder or URL of anchors [default: the profile's].")
def verify(pipeline: str | None, url: str | None) -> None:
    """Name every row that was changed, removed, reordered or inserted; code 1 when there is one.

    Compared with the newest anchor, also rows that were cut off at the end, or rewritten with all that follow.
    """
    profile = load_project().profile
    stored, path = profile.services().ledger, None if pipeline is None else _split(pipeline)
    problems, sentences = stored.verify(path), []
    anchors = profile.anchors(url)
    if anchors is not None:
        document = _newest(anchors, required=url is not None)
        sentences.append(_compared(anchors, document))
        problems += [] if document is None else check_anchor(document, stored, path)
    if problems:
        _show(problems)
        sys.exit(1)
    heads = stored.heads(path)
    if path is not None and not heads:
        known = sorted({stream.partition("/")[2] for stream in stored.heads()})
        raise click.UsageError(f"The ledger has no row of {pipeline}; it has rows of {', '.join(known) or 'nothing'}.")
    for sentence in (f"{_counts(heads)}, unbroken", *sentences):
        click.echo(sentence)


@ledger.command()
@click.argument("url", required=False)
def anchor(url: str | None) -> None:
    """Write where every stream ends now to URL (the profile's by default), one file a day.

    Refused when the ledger no longer holds what the newest anchor knows: what was cut off shall not be forgotten.
    """
    profile = load_project().profile
    stored, anchors = profile.services().ledger, profile.anchors(url)
    if anchors is None:
        raise click.UsageError(
            "The profile has no place for anchors; name a folder or URL that the ledger's writers cannot change."
        )
    newest = anchors.read()
    problems = [] if newest is None else check_anchor(newest, stored)
    if problems:
        _show(problems)
        click.echo(f"No anchor was written to {anchors.url}.", err=True)
        sys.exit(1)
    heads = stored.heads()
    file = anchors.write(heads, datetime.now(UTC))
    click.echo(f"{_counts(heads)} anchored in {file}")


def _newest(anchors: AnchorStore, *, required: bool) -> dict[str, Any] | None:
    """Return the newest anchor's document.

    Raises:
        LedgerError: If there must be one and there is none.
    """
    document = anchors.read()
    if document is None and required:
        raise LedgerError(f"There is no anchor in {anchors.url}. Write one with: ml-assets ledger anchor {anchors.url}")
    return document


def _compared(anchors: AnchorStore, document: Mapping[str, Any] | None) -> str:
    if document is None:
        return f"there is no anchor in {anchors.url} yet; `ml-assets ledger anchor` writes one"
    return f"nothing is missing that was anchored in {anchors.url} on {document.get('anchored_at', 'an unknown day')}"


def _split(pipeline: str) -> PipelinePath:
    team, _, name = pipeline.partition("/")
    if not team or not name or "/" in name:
        raise click.UsageError(f"{pipeline!r} is no pipeline; expected TEAM/PIPELINE, such as flights/arrival_delay.")
    return team, name


def _show(problems: list[ChainProblem]) -> None:
    for problem in problems[:_MOST_SHOWN]:
        click.echo(f"{problem.stream} row {problem.position}: {problem.problem}")
    if problems[_MOST_SHOWN:]:
        click.echo(f"and {len(problems) - _MOST_SHOWN} more")


def _counts(heads: dict[str, ChainHead]) -> str:
    n_rows, n_streams = sum(head.position for head in heads.values()), len(heads)
    return f"{n_rows} row{'' if n_rows == 1 else 's'} in {n_streams} stream{'' if n_streams == 1 else 's'}"
