"""The commands approvals, waivers, history and rollback on real flights: good and bad words, and how they end."""

from pathlib import Path

import pytest

from tests.e2e.commands import refused, said, typed
from tests.e2e.governed import NAME, PATH, Governed

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

MARCH = (NAME, "2013-03")
GATE = (NAME, "evaluation", "2013-04", "log_loss.beats_baseline")
SIGNED = ("--as", "anna", "--reason", "I read the dossier.")


def test_what_waits_is_listed_and_shown_with_what_an_approval_is_bound_to(waiting: Governed) -> None:
    (decision,) = [d for d in waiting.ledger().decisions(PATH) if d.outcome == "awaiting_approval"]

    listed = said(waiting, "approvals", "list")
    shown = said(waiting, "approvals", "show", *MARCH)

    assert "2013-03" in listed
    assert "0 of 1" in listed
    assert "it is the first model" in listed
    assert shown.startswith("flights/arrival_delay [2013-03]: awaiting approval roc_auc against the baseline: ")
    for digest in (decision.model_digest, decision.evaluation_digest, decision.policy_digest):
        assert digest in shown
    assert "first_model yes yes it is the first model: there is no champion" in shown
    assert "0 of 1 approvals, until" in shown


def test_an_approval_is_counted_once_a_person_and_told(waiting: Governed) -> None:
    told = said(waiting, "approvals", "approve", *MARCH, *SIGNED)

    assert told.startswith("anna approved flights/arrival_delay [2013-03], 1 of 1. It is promoted within seconds")
    again = refused(waiting, "approvals", "approve", *MARCH, *SIGNED)
    assert again.startswith("anna has said 'approve' of flights/arrival_delay [2013-03] already, at ")
    assert "anna approved at" in said(waiting, "approvals", "show", *MARCH)
    assert "anna approved version 1 until" in said(waiting, "history", NAME)


def test_a_rejection_is_the_end_and_the_champion_stays(waiting: Governed) -> None:
    told = said(waiting, "approvals", "reject", *MARCH, "--as", "olga", "--reason", "The desk saw odd scores.")

    assert told == "olga rejected flights/arrival_delay [2013-03]. The champion stays."
    assert said(waiting, "approvals", "list") == "Nothing waits for approval."
    late = refused(waiting, "approvals", "approve", *MARCH, *SIGNED)
    assert late.startswith("flights/arrival_delay [2013-03] awaits no approval: it is rejected (Rejected by olga: The ")
    assert "Version 1 was rejected: Rejected by olga: The desk saw odd scores." in said(waiting, "history", NAME)


def test_a_printed_statement_is_recorded_when_it_is_submitted_and_only_once(waiting: Governed) -> None:
    statement = waiting.say("approvals", "approve", *MARCH, *SIGNED, "--print").stdout.strip()
    assert waiting.ledger().records(PATH, kind="approval") == []

    assert said(waiting, "approvals", "submit", statement).startswith("anna approved flights/arrival_delay [2013-03]")

    assert "has said 'approve'" in refused(waiting, "approvals", "submit", statement)
    assert len(waiting.ledger().records(PATH, kind="approval")) == 1


def test_an_approval_by_whoever_launched_the_training_is_refused(waiting: Governed) -> None:
    (launcher,) = waiting.ledger().decisions(PATH)[-1].launched_by
    people = waiting.policies / "people.yaml"
    text = people.read_text(encoding="utf-8")
    people.write_text(text.replace("logins: []", f"logins: [{launcher}]", 1), encoding="utf-8")

    assert "launched a run" in refused(waiting, "approvals", "approve", *MARCH, *SIGNED)


def test_a_changed_policy_voids_an_approval_until_it_is_decided_again(waiting: Governed) -> None:
    with (waiting.policies / "teams" / "flights.yaml").open("a", encoding="utf-8") as team:
        team.write("  approval.needed:\n    value: 2\n    reason: Four eyes.\n")

    message = refused(waiting, "approvals", "approve", *MARCH, *SIGNED)

    assert message.startswith("The policy has changed since flights/arrival_delay [2013-03] was decided (")
    advice = "`ml-assets backfill flights/arrival_delay --from 2013-03 --to 2013-03`"
    assert advice in message
    waiting.say("backfill", NAME, "--from", "2013-03", "--to", "2013-03")
    assert "anna approved flights/arrival_delay [2013-03], 1 of 2. 1 more person must approve" in said(
        waiting, "approvals", "approve", *MARCH, *SIGNED
    )


BAD_APPROVALS = [
    (("list", "flights/nothing"), 2, "There is no pipeline 'flights/nothing'; there are births/daily_births, "),
    (("show", NAME, "2013-09"), 1, "Nothing was decided on flights/arrival_delay [2013-09] yet."),
    (("approve", NAME, "2013-02", *SIGNED), 1, "flights/arrival_delay [2013-02] awaits no approval: it is refused ("),
    (("approve", NAME, "2013-09", *SIGNED), 1, "Nothing was decided on flights/arrival_delay [2013-09] yet."),
    (("approve", *MARCH, "--as", "eve", "--reason", "x"), 1, "There is no key "),
    (("approve", *MARCH, "--reason", "x"), 2, "Say with --as who you are; the keys in "),
    (("approve", *MARCH, "--as", "anna"), 2, "Missing option '--reason'."),
    (("approve", *MARCH, "--as", "anna", "--reason", " "), 1, "The statement cannot be read: it has no reason; say "),
    (("approve", *MARCH, *SIGNED, "--days", "0"), 2, "Invalid value for '--days': 0.0 is not in the range x>0."),
    (("approve", *MARCH, *SIGNED, "--days", "6"), 1, "The statement on flights/arrival_delay [2013-03] would count "),
    (("submit", "rubbish"), 1, "The statement cannot be read: the text is no encoded statement; paste the whole line "),
]


@pytest.mark.parametrize(("arguments", "code", "message"), BAD_APPROVALS, ids=typed(BAD_APPROVALS))
def test_a_bad_word_of_approvals_gets_one_clear_message(
    waiting: Governed, arguments: tuple[str, ...], code: int, message: str
) -> None:
    assert refused(waiting, "approvals", *arguments, code=code).startswith(message)
    assert waiting.ledger().records(PATH, kind="approval") == []


def test_a_key_that_others_can_read_signs_nothing(waiting: Governed, tmp_path: Path) -> None:
    key = tmp_path / "anna.pem"
    key.write_bytes((waiting.keys / "anna.pem").read_bytes())
    key.chmod(0o644)

    message = refused(waiting, "approvals", "approve", *MARCH, *SIGNED, "--key", str(key))

    assert message == f"{key} has mode 0644; expected 0600, so that nobody else reads it: chmod 600 {key}"


def test_a_waiver_lets_a_failed_gate_pass_and_is_listed(champions: Governed) -> None:
    assert champions.outcomes()[-2:] == [("2013-04", "refused"), ("2013-04", "promoted")]
    listed = said(champions, "waivers", "list", NAME)

    assert "anna" in listed
    assert "counts" in listed
    assert "April was" in listed
    assert "anna waived the gate log_loss.beats_baseline until" in said(champions, "history", NAME)
    assert said(champions, "waivers", "list", "births/daily_births") == "Nothing is waived."


BAD_WAIVERS = [
    (("list", "flights/nothing"), 2, "There is no pipeline 'flights/nothing'"),
    (
        ("grant", NAME, "evaluation", "2013-04", "roc_auc.floor", *SIGNED, "--days", "1"),
        1,
        "The gate roc_auc.floor of flights/arrival_delay/evaluation [2013-04] closes nothing on data version ",
    ),
    (
        ("grant", NAME, "evaluation", "2013-04", "nothing", *SIGNED, "--days", "1"),
        1,
        "flights/arrival_delay/evaluation",
    ),
    (
        ("grant", NAME, "evaluation", "2013-09", GATE[-1], *SIGNED, "--days", "1"),
        1,
        "flights/arrival_delay/evaluation [2013-09] has not been materialized, so that no gate of it has failed.",
    ),
    (
        ("grant", NAME, "evaluation", "2013-02", GATE[-1], *SIGNED, "--days", "9"),
        1,
        "The statement on flights/arrival_delay [2013-02] would count for 9 days; the policy's waiver.valid_days ",
    ),
    (("grant", *GATE, *SIGNED), 2, "Missing option '--days'."),
]


@pytest.mark.parametrize(("arguments", "code", "message"), BAD_WAIVERS, ids=typed(BAD_WAIVERS))
def test_a_bad_word_of_waivers_gets_one_clear_message(
    champions: Governed, arguments: tuple[str, ...], code: int, message: str
) -> None:
    assert refused(champions, "waivers", *arguments, code=code).startswith(message)
    assert len(champions.ledger().records(PATH, kind="waiver")) == 1


def test_history_tells_everything_that_happened_oldest_first(champions: Governed) -> None:
    lines = champions.say("history", NAME).stdout.splitlines()

    story = [
        "2013-02 refused The candidate was refused: log_loss.beats_baseline: ",
        "2013-03 awaiting approval Version 1 passed, and waits for approval: ",
        "alias Alias challenger points at version 1",
        "alias Alias shadow points at version 1",
        "2013-03 approval anna approved version 1 until ",
        "2013-03 promoted Version 1 became champion, approved by anna: ",
        "alias Alias champion points at version 1",
        "alias Alias shadow points at nothing",
        "2013-04 refused The candidate was refused (champion was version 1): log_loss.beats_baseline: ",
        "2013-04 waiver anna waived the gate log_loss.beats_baseline until ",
        "2013-04 promoted Version 2 became champion (champion was version 1): ",
        "alias Alias champion points at version 2",
        "alias Alias challenger points at version 2",
    ]
    told = [" ".join(line.split()[2:]) for line in lines]
    assert len(told) == len(story), told
    assert [line for line, start in zip(told, story, strict=True) if not line.startswith(start)] == []
    assert champions.say("history", NAME, "--last", "2").stdout.splitlines() == lines[-2:]


def test_a_history_of_nothing_says_so_and_a_bad_one_is_refused(waiting: Governed) -> None:
    assert said(waiting, "history", "births/daily_births") == "Nothing was decided of births/daily_births yet."
    assert refused(waiting, "history", "flights/nothing", code=2).startswith("There is no pipeline 'flights/nothing'")
    assert "0 is not in the range x>=1" in refused(waiting, "history", NAME, "--last", "0", code=2)


def test_a_rollback_puts_the_champion_before_back_and_a_second_one_asks(champions: Governed) -> None:
    first = said(champions, "rollback", NAME, "--reason", "Complaints.")

    assert first.startswith(
        "Version 2 of 2013-04 is no longer champion. Version 1 of 2013-03 is champion again. Predictions made with it "
        "stay as they are; to score them again, materialize their `predictions`. To have 2013-04 decided again, "
        "materialize its `candidate`, `evaluation` and `promotion`. Dossier: "
    )
    assert Path(first.rpartition("Dossier: ")[2]).is_file()
    assert champions.aliases()["champion"] == "1"
    assert champions.outcomes()[-1] == ("2013-04", "rolled_back")

    second = refused(champions, "rollback", NAME, "--reason", "Complaints.")

    assert second == (
        "flights/arrival_delay has no champion before version 1 of 2013-03; scoring would stop. "
        "Say --without-successor if that is what you want."
    )
    assert champions.aliases()["champion"] == "1"

    third = said(champions, "rollback", NAME, "--reason", "Complaints.", "--without-successor")

    assert "flights/arrival_delay has no champion now; nothing scores until one is promoted." in third
    assert "champion" not in champions.aliases()
    none_left = "flights/arrival_delay has no champion; there is nothing to roll back."
    assert refused(champions, "rollback", NAME, "--reason", "Complaints.") == none_left
    assert champions.say("ledger", "verify").stdout.strip().endswith("unbroken")


BAD_ROLLBACKS = [
    ((NAME,), 2, "Missing option '--reason'."),
    ((NAME, "--reason", " "), 2, "Invalid value for --reason: say why in a sentence"),
    (("flights/nothing", "--reason", "x"), 2, "There is no pipeline 'flights/nothing'"),
    (
        ("births/daily_births", "--reason", "x"),
        1,
        "births/daily_births has no champion; there is nothing to roll back.",
    ),
    (
        (NAME, "--reason", "x", "--expected", "1"),
        1,
        "Version 2 is champion of flights/arrival_delay, not version 1; nothing was changed.",
    ),
]


@pytest.mark.parametrize(("arguments", "code", "message"), BAD_ROLLBACKS, ids=typed(BAD_ROLLBACKS))
def test_a_bad_rollback_gets_one_clear_message_and_changes_nothing(
    champions: Governed, arguments: tuple[str, ...], code: int, message: str
) -> None:
    before = champions.outcomes(), champions.aliases()

    assert refused(champions, "rollback", *arguments, code=code).startswith(message)

    assert (champions.outcomes(), champions.aliases()) == before
