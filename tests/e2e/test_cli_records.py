"""The commands policy, ledger, experiment and access on real flights: good and bad words, and how they end."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.e2e.commands import refused, said, typed
from tests.e2e.governed import NAME, Governed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

APPROVE_MARCH = ("approvals", "approve", NAME, "2013-03", "--as", "anna", "--reason", "I read the dossier.")
ALTERED = {
    "changed": "UPDATE decisions SET outcome = 'promoted' WHERE partition = '2013-02'",
    "removed": "DELETE FROM decisions WHERE partition = '2013-02'",
}


def test_policies_are_explained_and_checked(waiting: Governed) -> None:
    explained = said(waiting, "policy", "explain", NAME, "auc.floor")

    assert explained.startswith("roc_auc.floor of flights/arrival_delay: 0.55 ")
    assert "organization 0.55 (locked, unwaivable): counts" in explained
    assert f"{waiting.policies}/organization.yaml:" in explained
    assert "approval.valid_days" in said(waiting, "policy", "explain", NAME)
    assert f"{waiting.policies}: 7 files" in said(waiting, "policy", "check")
    assert "2 people without a problem" in said(waiting, "policy", "check", str(waiting.policies))


def test_a_policy_tree_that_loosens_a_lock_is_refused_with_both_places(waiting: Governed) -> None:
    file = waiting.policies / "teams" / "flights.yaml"
    with file.open("a", encoding="utf-8") as team:
        team.write("  roc_auc.floor:\n    value: 0.5\n    reason: We would like to.\n")

    done = waiting.run("policy", "check")

    assert done.returncode == 1
    assert f"{file}:" in done.stderr
    assert f"{waiting.policies}/organization.yaml:" in done.stderr
    assert "0.5 is looser than 0.55" in done.stderr
    assert f"1 problem in {waiting.policies}." in done.stderr
    assert "1 problem in the policy files:" in refused(waiting, *APPROVE_MARCH)


BAD_POLICY = [
    (("explain", NAME, "auc.flor"), 1, "There is no setting 'auc.flor'; expected one of "),
    (("explain", "flights/nothing"), 2, "There is no pipeline 'flights/nothing'"),
    (("explain", NAME, "--at", "yesterday"), 2, "Invalid value for '--at': 'yesterday' is not "),
    (("check", "/no/such/folder"), 1, "The policy folder /no/such/folder does not exist"),
    (("dry-run", "flights/nothing"), 2, "There is no pipeline flights/nothing; there are births/daily_births, "),
    (("dry-run", "--last", "0"), 2, "Invalid value for '--last': 0 is not in the range x>=1."),
    (("dry-run", "--tree", "/no/such/folder"), 1, "The policy folder /no/such/folder does not exist"),
]


@pytest.mark.parametrize(("arguments", "code", "message"), BAD_POLICY, ids=typed(BAD_POLICY))
def test_a_bad_word_of_policy_gets_one_clear_message(
    waiting: Governed, arguments: tuple[str, ...], code: int, message: str
) -> None:
    assert refused(waiting, "policy", *arguments, code=code).startswith(message)


def test_a_dry_run_of_a_changed_tree_shows_which_decisions_would_differ(waiting: Governed, tmp_path: Path) -> None:
    changed = tmp_path / "changed"
    settings = waiting.policies / "pipelines" / "flights" / "arrival_delay.yaml"
    other = changed / settings.relative_to(waiting.policies)
    for file in waiting.policies.rglob("*.yaml"):
        target = changed / file.relative_to(waiting.policies)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(file.read_bytes())
    with other.open("a", encoding="utf-8") as opened:
        opened.write("  roc_auc.floor:\n    value: 0.69\n    reason: The desk wants more.\n")
    before = waiting.outcomes()

    same, differs = said(waiting, "policy", "dry-run"), said(waiting, "policy", "dry-run", "--tree", str(changed))

    assert same.startswith("0 of 2 decisions would differ.")
    assert "2013-03 awaiting approval refused roc_auc.floor: roc_auc is 0.7" in differs
    assert "2013-02" not in differs
    assert "1 of 2 decisions would differ." in differs
    assert waiting.outcomes() == before


def test_a_dry_run_of_the_same_tree_knows_what_was_waived(champions: Governed) -> None:
    assert said(champions, "policy", "dry-run").startswith("0 of 5 decisions would differ.")


def test_a_whole_ledger_is_verified_and_anchored(waiting: Governed, tmp_path: Path) -> None:
    anchors = tmp_path / "anchors"

    assert said(waiting, "ledger", "verify").endswith(" rows in 3 streams, unbroken")
    assert f"anchored in {anchors}/heads-" in said(waiting, "ledger", "anchor", str(anchors))
    compared = said(waiting, "ledger", "verify", NAME, "--anchor", str(anchors))
    assert f"nothing is missing that was anchored in {anchors}" in compared
    assert "name a folder or URL" in refused(waiting, "ledger", "anchor", code=2)
    assert refused(waiting, "ledger", "verify", "--anchor", str(tmp_path / "none")).startswith("There is no anchor in ")
    assert refused(waiting, "ledger", "verify", "flights", code=2).startswith(
        "'flights' is no pipeline; expected TEAM/"
    )


def tamper(governed: Governed, statement: str) -> None:
    """Change the ledger's file behind its back, as whoever holds the database's credentials can."""
    with closing(sqlite3.connect(governed.state / "ledger.db")) as opened, opened:
        triggers = opened.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'").fetchall()
        for (name,) in triggers:
            opened.execute(f"DROP TRIGGER {name}")
        opened.execute(statement)


@pytest.mark.parametrize("how", sorted(ALTERED))
def test_a_tampered_ledger_is_named_and_nothing_is_promoted_by_it(waiting: Governed, how: str) -> None:
    tamper(waiting, ALTERED[how])

    done = waiting.run("ledger", "verify")

    assert done.returncode == 1
    assert f"decisions/{NAME} row 1: " in done.stdout
    assert how in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    waiting.run(*APPROVE_MARCH)
    again = waiting.run("backfill", NAME, "--from", "2013-03", "--to", "2013-03")
    assert again.returncode == 1, again.stdout
    assert "was tampered with: decisions/flights/arrival_delay, row 1" in " ".join(again.stdout.split())
    assert "champion" not in waiting.aliases()


def test_rows_that_were_cut_off_the_end_are_named_by_an_anchor(waiting: Governed, tmp_path: Path) -> None:
    waiting.say("ledger", "anchor", str(tmp_path))
    tamper(waiting, "DELETE FROM decisions WHERE partition = '2013-03'")
    assert waiting.run("ledger", "verify").returncode == 0

    done = waiting.run("ledger", "verify", "--anchor", str(tmp_path))

    assert done.returncode == 1
    assert f"decisions/{NAME} row 2: " in done.stdout
    assert waiting.run("ledger", "anchor", str(tmp_path)).returncode == 1


def test_an_experiment_that_there_is_not_says_how_to_begin_one(waiting: Governed) -> None:
    told = said(waiting, "experiment", NAME)

    assert told.startswith("No partition of flights/arrival_delay was scored by two arms.")
    assert "ab.challenger_share" in told
    assert refused(waiting, "experiment", "flights/nothing", code=2).startswith("There is no pipeline")


def test_a_new_key_is_private_and_counts_once_it_stands_in_the_policy_tree(waiting: Governed) -> None:
    made = waiting.printed["anna"]

    assert "ed25519" in made
    assert "PRIVATE" not in made
    assert (waiting.keys / "anna.pem").stat().st_mode & 0o777 == 0o600
    people = said(waiting, "access", "list")
    for person in ("anna", "olga"):
        assert f"{person} model_reviewer *" in people


BAD_KEYS = [
    (("new-key", "anna", "--no-passphrase"), 1, "anna.pem exists already, and a key is never overwritten."),
    (("new-key", "", "--no-passphrase"), 1, "The name is empty; expected a name such as olga. No key was made."),
    (("new-key", "eve", "--no-passphrase", "--trial"), 1, "People come from the policy tree alone here"),
    (("new-key",), 2, "Missing argument 'NAME'."),
]


@pytest.mark.parametrize(("arguments", "code", "message"), BAD_KEYS, ids=typed(BAD_KEYS))
def test_a_bad_key_gets_one_clear_message_and_makes_none(
    waiting: Governed, arguments: tuple[str, ...], code: int, message: str
) -> None:
    assert message in refused(waiting, "access", *arguments, code=code)
    assert sorted(file.name for file in waiting.keys.iterdir()) == ["anna.pem", "olga.pem"]
