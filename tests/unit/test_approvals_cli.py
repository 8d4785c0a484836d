"""The commands access, approvals and waivers, on a small project with a ledger and a policy tree of its own."""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner, Result

from ml_assets.approvals.statements import Statement
from ml_assets.cli.access import access
from ml_assets.cli.approvals import approvals
from ml_assets.cli.project import Location, Project
from ml_assets.cli.waivers import waivers
from ml_assets.interfaces import ModelVersion, Record
from ml_assets.testing.data_store import FakeDataStore
from ml_assets.testing.ledger import FakeLedger, decision, verdict
from ml_assets.testing.model_registry import FakeModelRegistry
from resources.policy_files import PolicyFiles

PIPELINE = ("flights", "arrival_delay")
NAME = "flights/arrival_delay"
MATERIAL = [
    {"name": "first_model", "changed": True, "counts": True, "sentence": "it is the first model", "evidence": {}},
    {"name": "columns", "changed": True, "counts": False, "sentence": "one column more", "evidence": {}},
]
POLICY = """
owner: ml-platform
effective_from: 2013-01-01
settings:
  roc_auc.floor: {value: 0.55, reason: Better than chance.}
  wape.ceiling: {value: 0.15, reason: Planning tolerates no more., unwaivable: true}
"""


@dataclass
class ProfileDouble:
    """What these commands ask of a profile, below one folder."""

    folder: Path
    user: str = "lena"
    with_trial: bool = True
    ledger: FakeLedger = field(default_factory=FakeLedger)
    data_store: FakeDataStore = field(default_factory=FakeDataStore)

    @property
    def keys_folder(self) -> Path:
        return self.folder / "keys"

    @property
    def trial_people(self) -> Path | None:
        return self.folder / "state" / "people.yaml" if self.with_trial else None

    def services(self) -> Any:
        trial = None if self.trial_people is None else str(self.trial_people)
        policy = PolicyFiles(str(self.folder / "policies"), trial_people=trial)
        registry, name = FakeModelRegistry(), "flights.arrival_delay"
        tags = {"ml_assets.dossier": "/dossiers/2013-03.html"}
        registry._versions[name] = [ModelVersion(name=name, version="4", run_id="run", model_uri="", tags=tags)]
        return SimpleNamespace(ledger=self.ledger, data_store=self.data_store, policy=policy, model_registry=registry)


@dataclass
class Desk:
    """A project and whoever works at its command line."""

    project: Project
    profile: ProfileDouble

    def run(self, command: Any, *words: str, typed: str = "") -> Result:
        return CliRunner().invoke(command, list(words), obj=self.project, input=typed)

    def say(self, command: Any, *words: str, typed: str = "") -> str:
        """Return what a command that succeeds prints, in one line."""
        result = self.run(command, *words, typed=typed)
        assert result.exit_code == 0, result.output + repr(result.exception)
        return " ".join(result.stdout.split())

    def refuse(self, command: Any, *words: str) -> str:
        """Return the message of a command that is refused."""
        result = self.run(command, *words)
        assert result.exit_code != 0, result.output
        return f"{result.exception} {result.output}"

    def key(self, name: str, *more: str) -> str:
        return self.say(access, "new-key", name, "--no-passphrase", "--trial", *more)

    def wait(self, **changes: Any) -> None:
        policy = self.profile.services().policy.effective(PIPELINE).digest
        given: dict[str, Any] = {
            "outcome": "awaiting_approval",
            "partition": "2013-03",
            "reason": "Better by 0.02, and the first model.",
            "model_version": "4",
            "model_digest": "a" * 64,
            "evaluation_digest": "b" * 64,
            "policy_digest": policy,
            "launched_by": ("lena",),
            "evidence": {"material": MATERIAL},
        }
        self.profile.ledger.record_decision(decision(**given | changes))


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    pipeline = tmp_path / "deployments" / "flights" / "defs" / "arrival_delay"
    pipeline.mkdir(parents=True)
    (pipeline / "defs.yaml").touch()
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "organization.yaml").write_text(POLICY)
    profile = ProfileDouble(folder=tmp_path)
    location = Location(name="flights", module="deployments.flights.definitions")
    project = Project(root=tmp_path, profile=profile, locations=(location,))  # pyright: ignore[reportArgumentType]
    return Desk(project=project, profile=profile)


# access


def test_a_new_key_is_made_and_its_entry_printed(desk: Desk) -> None:
    words = ("--role", "risk", "--team", "flights", "--login", "olga@laptop", "--no-passphrase")
    before = datetime.now(UTC)
    text = desk.say(access, "new-key", "olga", *words)

    path = desk.profile.keys_folder / "olga.pem"
    days = {at.date().isoformat() for at in (before, datetime.now(UTC))}
    assert path.stat().st_mode & 0o777 == 0o600
    assert f"Wrote {path} (mode 0600)" in text
    assert "olga: logins: [olga@laptop] roles: [risk] teams: [flights] keys: - {ed25519: " in text
    assert any(f"effective_from: {day}" in text for day in days)
    assert desk.profile.trial_people is not None
    assert not desk.profile.trial_people.exists()


def test_a_passphrase_is_asked_twice_and_once_to_sign(desk: Desk) -> None:
    text = desk.say(access, "new-key", "olga", "--trial", typed="horse\nhorse\n")
    desk.wait()

    assert "horse" not in text
    assert b"ENCRYPTED" in (desk.profile.keys_folder / "olga.pem").read_bytes()
    assert "olga approved" in desk.say(approvals, "approve", NAME, "2013-03", "--reason", "fine", typed="horse\n")


def test_a_trial_key_counts_here_and_says_so(desk: Desk) -> None:
    text = desk.key("olga")

    assert "the key counts on this machine only" in text
    assert "trial: this machine only" in desk.say(access, "list")


def test_a_trial_key_is_refused_where_the_policy_tree_alone_decides(desk: Desk) -> None:
    desk.profile.with_trial = False

    assert "no trial key would count" in desk.refuse(access, "new-key", "olga", "--trial", "--no-passphrase")
    assert not desk.profile.keys_folder.exists()


def test_a_trial_key_does_not_take_the_name_of_a_person_of_the_policy_tree(desk: Desk) -> None:
    text = desk.run(access, "new-key", "olga", "--no-passphrase").output
    block = text.split("people.yaml:\n\n")[1].split("\n\nAdd to")[0]
    (desk.profile.folder / "policies" / "people.yaml").write_text(f"owner: ml-platform\npeople:\n{block}\n")

    assert "olga model_reviewer * – " in desk.say(access, "list")
    other = str(desk.profile.folder / "other.pem")
    assert "people.yaml:3; a trial key needs a name of its own" in desk.refuse(
        access, "new-key", "olga", "--trial", "--no-passphrase", "--out", other
    )
    assert not Path(other).exists()


@pytest.mark.parametrize("name", ["Olga", "../olga", "", "x:\n  y", "a" * 64])
def test_a_name_that_the_people_file_would_not_take_makes_no_key(desk: Desk, name: str) -> None:
    assert "expected a name" in desk.refuse(access, "new-key", name, "--no-passphrase")
    assert not desk.profile.keys_folder.exists()


def test_a_key_is_made_once(desk: Desk) -> None:
    desk.key("olga")

    assert "is never overwritten" in desk.refuse(access, "new-key", "olga", "--trial")


def test_without_people_the_list_says_how_to_make_a_key(desk: Desk) -> None:
    assert desk.say(access, "list") == "Nobody may decide yet; `ml-assets access new-key NAME` makes a key."


# approvals


def test_what_waits_is_listed_with_why(desk: Desk) -> None:
    assert desk.say(approvals, "list") == "Nothing waits for approval."
    desk.wait()
    desk.wait(partition="2013-04", outcome="promoted")

    text = desk.say(approvals, "list", NAME)
    assert "2013-03, version 4" in text
    assert "0 of 1 it is the" in text
    assert "2013-04" not in text
    assert "one column more" not in text


def test_a_request_that_has_closed_is_listed_as_closed(desk: Desk) -> None:
    desk.wait(recorded_at=datetime.now(UTC) - timedelta(days=8))

    assert "(closed)" in desk.say(approvals, "list")
    desk.key("olga")
    assert "could be approved until" in desk.refuse(approvals, "approve", NAME, "2013-03", "--reason", "fine")


def test_a_decision_is_shown_with_all_that_an_approver_needs(desk: Desk) -> None:
    desk.wait(launched_by=("lena", ""))
    text = desk.say(approvals, "show", NAME, "2013-03")

    for part in (
        f"{NAME} [2013-03]: awaiting approval Better by 0.02",
        "launched by lena, somebody unknown",
        "dossier: /dossiers/2013-03.html",
        "first_model yes yes it is the first model",
        "columns yes no one column more",
        f"model_digest {'a' * 64}",
        "0 of 2 approvals, until",
    ):
        assert part in text, part


def test_show_says_who_spoke_and_what_does_not_count(desk: Desk) -> None:
    desk.key("olga")
    desk.wait()
    desk.say(approvals, "approve", NAME, "2013-03", "--reason", "the slices look right")
    (record,) = desk.profile.ledger.records(PIPELINE)
    desk.profile.ledger.append(record)

    text = desk.say(approvals, "show", NAME, "2013-03")
    assert "1 of 1 approvals" in text
    assert "olga approved at" in text
    assert ": the slices look right" in text
    assert "does not count (misplaced): olga's statement" in text


def test_an_approval_says_what_happens_next(desk: Desk) -> None:
    desk.key("olga")
    desk.key("pavel")
    desk.wait(launched_by=("",))

    first = desk.say(approvals, "approve", NAME, "2013-03", "--as", "olga", "--reason", "fine")
    second = desk.say(approvals, "approve", NAME, "2013-03", "--as", "pavel", "--reason", "fine too")

    assert first.startswith(f"olga approved {NAME} [2013-03], 1 of 2. 1 more person must approve until ")
    assert second == (
        f"pavel approved {NAME} [2013-03], 2 of 2. It is promoted within seconds where the daemon runs "
        f"(`ml-assets dev`); without one, `ml-assets backfill {NAME} --from 2013-03 --to 2013-03` promotes it."
    )


def test_a_rejection_is_recorded(desk: Desk) -> None:
    desk.key("olga")
    desk.wait()

    text = desk.say(approvals, "reject", NAME, "2013-03", "--reason", "too few rows in LGA")

    assert text == f"olga rejected {NAME} [2013-03]. The champion stays."
    assert desk.profile.ledger.decisions(PIPELINE)[-1].reason == "Rejected by olga: too few rows in LGA"


def test_a_printed_statement_is_recorded_by_submitting_it(desk: Desk) -> None:
    desk.key("olga")
    desk.wait()

    text = desk.say(approvals, "approve", NAME, "2013-03", "--reason", "fine", "--days", "2", "--print")
    assert desk.profile.ledger.records(PIPELINE) == []
    assert "olga approved" in desk.say(approvals, "submit", text)

    (record,) = desk.profile.ledger.records(PIPELINE)
    assert Statement.from_body(record.body) == Statement.decode(text)
    assert Statement.decode(text).expires_at - Statement.decode(text).issued_at == timedelta(days=2)
    assert "olga has said 'approve'" in desk.refuse(approvals, "submit", text)


def test_a_printed_statement_is_void_when_another_record_came_in(desk: Desk) -> None:
    desk.key("olga")
    desk.wait()
    text = desk.say(approvals, "approve", NAME, "2013-03", "--reason", "fine", "--print")
    desk.profile.ledger.append(Record(pipeline=PIPELINE, kind="incident", subject="champion", body={}))

    assert "Sign again" in desk.refuse(approvals, "submit", text)


def test_what_would_be_refused_is_not_even_printed(desk: Desk) -> None:
    desk.key("lena")
    desk.wait()

    message = desk.refuse(approvals, "approve", NAME, "2013-03", "--reason", "fine", "--print")
    assert "lena launched a run that led to" in message


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("show", "flights/other", "2013-03"), f"There is no pipeline 'flights/other'; there are {NAME}"),
        (("approve", NAME, "2013-05", "--reason", "x"), "Nothing was decided on"),
        (("show", NAME, "2013-05"), "Nothing was decided on"),
        (("approve", NAME, "2013-03", "--reason", " "), "it has no reason"),
        (("approve", NAME, "2013-03"), "Missing option '--reason'"),
        (("approve", NAME, "2013-03", "--reason", "x", "--days", "30"), "would count for 30 days"),
        (("approve", NAME, "2013-03", "--reason", "x", "--days", "0"), "'--days'"),
        (("approve", NAME, "2013-03", "--reason", "x", "--as", "nobody"), "There is no key"),
        (("submit", "hello"), "The statement cannot be read"),
    ],
)  # fmt: skip
def test_a_refusal_is_one_clear_sentence(desk: Desk, words: tuple[str, ...], message: str) -> None:
    desk.key("olga")
    desk.wait()

    assert message in desk.refuse(approvals, *words)
    assert desk.profile.ledger.records(PIPELINE) == []


def test_with_several_keys_one_must_say_who_one_is(desk: Desk) -> None:
    desk.wait()
    assert "are: none; `ml-assets access new-key NAME` makes one" in desk.refuse(
        approvals, "approve", NAME, "2013-03", "--reason", "x"
    )
    desk.key("olga")
    desk.key("pavel")

    assert "are: olga, pavel." in desk.refuse(approvals, "approve", NAME, "2013-03", "--reason", "x")


def test_text_of_others_is_shown_as_it_is(desk: Desk) -> None:
    """Square brackets are no markup of the terminal, whoever wrote them."""
    desk.key("olga")
    failed(desk)
    desk.wait(evidence={"material": [{**MATERIAL[0], "sentence": "[/red] [bold]new[/bold]"}]})
    words = ("grant", NAME, "evaluation", "2013-03", "roc_auc.floor", "--reason", "[/x] [link=y]", "--days", "2")
    desk.say(waivers, *words)

    assert "[/red] [bold]new[/bold]" in desk.say(approvals, "show", NAME, "2013-03")
    assert "[/red]" in desk.say(approvals, "list")
    assert "[/x] [link=y]" in desk.say(waivers, "list")


# waivers


def failed(desk: Desk, check: str = "roc_auc.floor", **changes: Any) -> str:
    asset = (*PIPELINE, "evaluation")
    stored = desk.profile.data_store.write_document(asset, "2013-03", {"n": 1}, data_version="d" * 64)
    given = {
        "asset": asset,
        "partition": "2013-03",
        "data_version": stored.data_version,
        "check": check,
        "outcome": "failed",
    }
    desk.profile.ledger.record_verdicts([verdict(**given | changes)])
    return stored.data_version


def test_a_waiver_is_granted_and_listed(desk: Desk) -> None:
    assert desk.say(waivers, "list") == "Nothing is waived."
    desk.key("olga")
    version = failed(desk)

    words = ("grant", NAME, "evaluation", "2013-03", "roc_auc.floor", "--reason", "a strike", "--days", "2")
    text = desk.say(waivers, *words)

    assert text.startswith(
        f"olga lets roc_auc.floor of {NAME}/evaluation [2013-03], data version {version[:12]}, pass until "
    )
    assert "counts" in desk.say(waivers, "list", NAME)


@pytest.mark.parametrize(
    ("stage", "gate", "days", "message"),
    [
        ("evaluation", "wape.ceiling", "1", "The gate wape.ceiling is marked unwaivable"),
        ("evaluation", "roc_auc.floor", "8", "would count for 8 days; the policy's waiver.valid_days"),
        ("evaluation", "roc_auc", "1", "has no verdict of 'roc_auc'; it has verdicts of roc_auc.floor, wape.ceiling"),
        ("raw_data", "expectations", "1", "has not been materialized"),
    ],
)
def test_a_waiver_is_refused_with_the_reason(desk: Desk, stage: str, gate: str, days: str, message: str) -> None:
    desk.key("olga")
    failed(desk)
    failed(desk, "wape.ceiling")

    assert message in desk.refuse(waivers, "grant", NAME, stage, "2013-03", gate, "--reason", "x", "--days", days)
    assert desk.profile.ledger.records(PIPELINE) == []


def test_whoever_launched_the_run_cannot_waive_its_gate(desk: Desk) -> None:
    desk.key("olga", "--login", "olga@laptop")
    failed(desk)
    desk.wait(outcome="refused", launched_by=("olga@laptop",))

    words = ("grant", NAME, "evaluation", "2013-03", "roc_auc.floor", "--reason", "x", "--days", "1")
    assert "olga launched a run that led to" in desk.refuse(waivers, *words)
