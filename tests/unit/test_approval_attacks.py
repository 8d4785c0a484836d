"""The tables of what was tried to get round approvals and waivers, and what refused it.

They stand in docs/concepts/approvals.md; `pytest --update-golden` writes them anew.
"""

import re
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ml_assets.approvals.giving import give_with_retry, submit
from ml_assets.testing.policy_source import FakePolicySource
from tests.unit.test_approvals_attempts import APPROVALS
from tests.unit.test_approvals_waivers import WAIVERS, waive
from tests.unit.test_approvals_world import NOW, PIPELINE, Attack, Outcome, SessionSigner, World

PAGE = Path(__file__).parents[2] / "docs" / "concepts" / "approvals.md"


def table(attacks: list[Attack], later: str) -> str:
    rows = [f"| attempt | who tries it | when it is given | {later} |", "|---|---|---|---|"]
    for attack in attacks:
        outcome = attack.run()
        rows.append(f"| {attack.name} | {attack.does} | {outcome.given} | {outcome.later} |")
    return "\n".join(rows)


@pytest.mark.parametrize(
    ("name", "attacks", "later"),
    [("approvals", APPROVALS, "at promotion"), ("waivers", WAIVERS, "at the gate")],
    ids=["approvals", "waivers"],
)
def test_the_page_shows_what_was_tried_and_what_refused_it(
    name: str, attacks: list[Attack], later: str, *, update_golden: bool
) -> None:
    text = PAGE.read_text(encoding="utf-8")
    block = re.compile(rf"(?<=<!-- attacks: {name} -->\n).*?(?=\n<!-- end -->)", re.DOTALL)
    found = table(attacks, later)
    if update_golden:
        text = block.sub(lambda _: found, text)
        PAGE.write_text(text, encoding="utf-8")

    shown = block.search(text)
    assert shown is not None
    assert shown[0] == found, "write it anew with --update-golden"


def test_the_honest_way_is_open() -> None:
    """The attacks above fail for what they change: without it, the same statements count."""
    world = World(settings={"approval.needed": 2})
    waiting = world.wait()

    assert world.approve("olga", waiting).missing == 1
    assert world.approve("pavel", waiting).complete
    assert waive(world, world.failed()) == Outcome(given="accepted", later="live", stopped=False)


def test_two_people_in_threads_both_count_and_complete_it_once() -> None:
    world = World(settings={"approval.needed": 2})
    waiting = world.wait()

    def speak(name: str) -> bool:
        return give_with_retry(
            world.ledger,
            PIPELINE,
            lambda previous: world.sign(SessionSigner(name), waiting, previous=previous),
            lambda statement: submit(world.ledger, _policy(world), statement, now=NOW),
        ).complete

    with ThreadPoolExecutor(2) as pool:
        completed = sorted(pool.map(speak, ["olga", "pavel"]))

    assert completed == [False, True]
    assert world.ledger.verify(PIPELINE) == []


def _policy(world: World) -> FakePolicySource:
    return FakePolicySource(world.settings, world.people)
