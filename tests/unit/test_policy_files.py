"""PolicyFiles and FakePolicySource keep the promises of a policy source; a tree is read where it lies, as it is now."""

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import fsspec
import pytest
import yaml
from fsspec.implementations.memory import MemoryFileSystem

from ml_assets.errors import PolicyError
from ml_assets.interfaces import Person, PolicySource, Setting
from ml_assets.policy import folder
from ml_assets.policy.schema import shown_instant
from ml_assets.testing.policy_source import (
    PIPELINE,
    FakePolicySource,
    MakePolicySource,
    PolicySourceSuite,
    person,
    setting,
)
from resources.policy_files import PolicyFiles

REPOSITORY = Path(__file__).parents[2]
GOOD = (
    "owner: ml-platform\neffective_from: 2013-01-01\nsettings:\n"
    "  roc_auc.floor:\n    value: 0.55\n    reason: Better than chance.\n"
)


def as_files(settings: Mapping[str, Setting], people: Mapping[str, Person]) -> dict[str, str]:
    """Return the files of a tree with these settings of the organization, and these people."""
    files = {"organization.yaml": {"owner": "somebody", "settings": {n: entry(s) for n, s in settings.items()}}}
    if people:
        files["people.yaml"] = {"owner": "somebody", "people": {n: declared(p) for n, p in people.items()}}
    return {name: yaml.safe_dump(body, allow_unicode=True) for name, body in files.items()}


def entry(given: Setting) -> dict[str, Any]:
    optional = {
        "severity": given.severity if given.severity != "error" else None,
        "unwaivable": given.unwaivable or None,
        "expires": shown_instant(given.expires) if given.expires else None,
    }
    return {
        "value": list(given.value) if isinstance(given.value, tuple) else given.value,
        "reason": given.reason,
        "owner": given.owner,
        "locked": given.locked,
        "effective_from": shown_instant(given.effective_from) if given.effective_from else None,
        **{name: value for name, value in optional.items() if value is not None},
    }


def declared(given: Person) -> dict[str, Any]:
    keys = [
        {
            "ed25519": key.value,
            "effective_from": shown_instant(key.effective_from),
            **({"expires": shown_instant(key.expires)} if key.expires else {}),
        }
        for key in given.keys
    ]
    return {"logins": list(given.logins), "roles": list(given.roles), "teams": list(given.teams), "keys": keys}


class TestPolicyFiles(PolicySourceSuite):
    @pytest.fixture
    def make_source(self, tmp_path: Path) -> MakePolicySource:
        def make(settings: Mapping[str, Setting], people: Mapping[str, Person]) -> PolicySource:
            folder = tmp_path / uuid.uuid4().hex
            lay_out(folder, as_files(settings, people))
            return PolicyFiles(str(folder))

        return make


class TestPolicyFilesByUrl(PolicySourceSuite):
    @pytest.fixture
    def make_source(self) -> MakePolicySource:
        def make(settings: Mapping[str, Setting], people: Mapping[str, Person]) -> PolicySource:
            url = f"memory://policies-{uuid.uuid4().hex}"
            for name, text in as_files(settings, people).items():
                with fsspec.open(f"{url}/{name}", "w", encoding="utf-8") as file:
                    file.write(text)  # pyright: ignore[reportAttributeAccessIssue]
            return PolicyFiles(url)

        return make


class TestFakePolicySource(PolicySourceSuite):
    @pytest.fixture
    def make_source(self) -> MakePolicySource:
        return FakePolicySource


def lay_out(folder: Path, files: Mapping[str, str]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")


def one(value: object, name: str = "roc_auc.floor", **head: str) -> str:
    """Return a file with one setting."""
    fields = {"owner": "x", "effective_from": "2013-01-01", **head}
    body = {name: {"value": value, "reason": "Because."}}
    return yaml.safe_dump({**fields, "settings": body})


@pytest.fixture
def policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `policies` in the working folder with an organization's file that sets nothing."""
    monkeypatch.chdir(tmp_path)
    lay_out(tmp_path / "policies", {"organization.yaml": "owner: x\n"})
    return tmp_path / "policies"


def test_a_fake_takes_bare_values_and_whole_settings() -> None:
    source = FakePolicySource(
        {
            "roc_auc.floor": 0.55,
            "approval.roles": ["b", "a"],
            "wape.margin": setting("wape.margin", 1, severity="warning"),
        }
    )

    found = source.effective(("any", "pipeline"))

    assert (found.number("roc_auc.floor"), found.names("approval.roles")) == (0.55, ("a", "b"))
    assert found.settings["wape.margin"].severity == "warning"
    assert found.flag("material.features") is True


def test_a_fake_refuses_a_name_that_the_catalogue_lacks() -> None:
    with pytest.raises(PolicyError, match=r"There is no setting 'roc_auc\.flor'"):
        FakePolicySource({"roc_auc.flor": 0.55})


def test_the_policies_of_this_repository() -> None:
    source = PolicyFiles(str(REPOSITORY / "policies"))

    flights, births = source.effective(("flights", "arrival_delay")), source.effective(("births", "daily_births"))

    assert {n: flights.number(n) for n in ("roc_auc.floor", "roc_auc.margin", "log_loss.beats_baseline")} == {
        "roc_auc.floor": 0.55,
        "roc_auc.margin": 0.02,
        "log_loss.beats_baseline": 0.0,
    }
    assert (births.number("wape.ceiling"), births.number("wape.margin")) == (0.15, 0.005)
    assert flights.settings["waiver.valid_days"].level == "domain"
    assert births.settings["waiver.valid_days"].level == "organization"
    assert flights.names("material.protected_slices") == ("origin",)
    assert source.people() == {}


def test_the_lowest_level_that_sets_a_value_counts(policies: Path) -> None:
    lay_out(
        policies,
        {
            "organization.yaml": one(0.5),
            "domains/operations.yaml": one(0.6),
            "teams/flights.yaml": one(0.7, domain="operations"),
            "pipelines/flights/arrival_delay.yaml": one(0.8),
        },
    )
    source = PolicyFiles("policies")

    def chain(pipeline: tuple[str, str]) -> list[tuple[str, object, str]]:
        return [(s.level, s.value, f"{s.file}:{s.line}") for s in source.effective(pipeline).chains["roc_auc.floor"]]

    levels = [
        ("organization", 0.5, "policies/organization.yaml:4"),
        ("domain", 0.6, "policies/domains/operations.yaml:4"),
        ("team", 0.7, "policies/teams/flights.yaml:5"),
        ("pipeline", 0.8, "policies/pipelines/flights/arrival_delay.yaml:4"),
    ]
    assert chain(("flights", "arrival_delay")) == levels
    assert chain(("flights", "cancellation")) == levels[:3]
    assert chain(("births", "arrival_delay")) == levels[:1]


def test_a_pipelines_file_needs_no_file_of_its_team(policies: Path) -> None:
    lay_out(policies, {"pipelines/flights/arrival_delay.yaml": one(0.8)})

    assert PolicyFiles("policies").effective(PIPELINE).number("roc_auc.floor") == 0.8


def test_a_changed_file_is_seen_at_the_next_call(policies: Path) -> None:
    source, file = PolicyFiles("policies"), policies / "organization.yaml"
    file.write_text(GOOD)
    before = source.effective(PIPELINE)
    stamp = file.stat()

    file.write_text(GOOD.replace("0.55", "0.65"))
    os.utime(file, ns=(stamp.st_atime_ns, stamp.st_mtime_ns))  # same size, same time of change

    after = source.effective(PIPELINE)
    assert (before.number("roc_auc.floor"), after.number("roc_auc.floor")) == (0.55, 0.65)
    assert before.digest != after.digest
    lay_out(policies, {"teams/flights.yaml": one(0.75), "people.yaml": "owner: x\npeople: {olga: {}}\n"})
    assert source.effective(PIPELINE).number("roc_auc.floor") == 0.75
    assert list(source.people()) == ["olga"]


class RemembersListings(MemoryFileSystem):
    """A store that remembers listings until it is told to forget them, as clients of object stores do."""

    protocol = "remembering"
    listings: ClassVar[dict[str, Any]] = {}

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return super()._strip_protocol(path.replace("remembering://", "memory://"))

    def ls(self, path: str, detail: bool = True, **kwargs: Any) -> Any:
        if path not in self.listings:
            self.listings[path] = super().ls(path, detail=detail, **kwargs)
        return self.listings[path]

    def invalidate_cache(self, path: str | None = None) -> None:
        del path
        self.listings.clear()


def test_files_are_parsed_once_for_all_decisions_and_every_byte_counts(
    policies: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = {f"pipelines/flights/p{n}.yaml": one(0.6 + n / 1000) for n in range(20)}
    lay_out(policies, {"organization.yaml": GOOD, **own})
    source, parsed = PolicyFiles(str(policies)), list[str]()
    load_yaml = folder.load_yaml

    def noted(text: str, *, file: str) -> Any:
        parsed.append(file.rpartition("/")[2])
        return load_yaml(text, file=file)

    monkeypatch.setattr(folder, "load_yaml", noted)
    values = [source.effective(("flights", f"p{n}")).number("roc_auc.floor") for n in range(20)]
    assert values == [0.6 + n / 1000 for n in range(20)]
    assert sorted(parsed) == sorted(["organization.yaml", *(f"p{n}.yaml" for n in range(20))])

    file = policies / "pipelines/flights/p3.yaml"
    before = file.stat()
    file.write_text(file.read_text(encoding="utf-8").replace("0.603", "0.703"), encoding="utf-8")
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))  # the same size and time: an edit all the same
    assert source.effective(("flights", "p3")).number("roc_auc.floor") == 0.703
    file.write_text("settings: [", encoding="utf-8")
    for _ in range(2):
        with pytest.raises(PolicyError, match=r"p3\.yaml"):
            source.effective(("flights", "p4"))


def test_a_new_file_is_seen_although_the_client_remembers_listings() -> None:
    fsspec.register_implementation("remembering", RemembersListings, clobber=True)
    store, folder = MemoryFileSystem(), f"/policies-{uuid.uuid4().hex}"
    store.pipe(f"{folder}/organization.yaml", GOOD.encode())
    source = PolicyFiles(f"remembering://{folder}")
    before = source.effective(PIPELINE).number("roc_auc.floor")

    store.pipe(f"{folder}/teams/flights.yaml", one(0.7).encode())

    assert (before, source.effective(PIPELINE).number("roc_auc.floor")) == (0.55, 0.7)


def test_files_for_readers_and_hidden_ones_are_passed_over(policies: Path) -> None:
    lay_out(
        policies,
        {
            ".github/workflows/check.yaml": "not: a policy",
            ".organization.yaml.swp": "\x00",
            "README.md": "# Ours",
            "teams/README.md": "# Teams",
            "CODEOWNERS": "* @ml-platform",
        },
    )

    assert PolicyFiles("policies").effective(PIPELINE).settings["approval.needed"].level == "built-in"


def test_links_are_followed_as_in_a_mounted_volume(policies: Path) -> None:
    lay_out(policies, {"..data/teams/flights.yaml": one(0.7)})
    (policies / "teams").symlink_to(policies / "..data" / "teams")

    assert PolicyFiles("policies").effective(PIPELINE).number("roc_auc.floor") == 0.7


def test_a_file_that_is_too_large_is_not_read(policies: Path) -> None:
    with (policies / "people.yaml").open("wb") as file:
        file.truncate(5_000_000_000)  # sparse: reading it would take all memory

    with pytest.raises(PolicyError, match=r"people\.yaml: 5,000,000,000 bytes; expected at most 1,000,000 bytes"):
        PolicyFiles("policies").people()


def test_a_file_in_another_encoding(policies: Path) -> None:
    (policies / "organization.yaml").write_bytes("owner: x\nsettings: {} # größer\n".encode("latin-1"))

    with pytest.raises(PolicyError, match=r"organization\.yaml:2: the byte 0xf6, which is not UTF-8; expected text"):
        PolicyFiles("policies").effective(PIPELINE)


@pytest.mark.parametrize("name", ["nowhere", "organization.yaml"])
def test_a_folder_that_does_not_exist_is_not_an_empty_policy(policies: Path, name: str) -> None:
    with pytest.raises(PolicyError, match=f"The policy folder policies/{name} does not exist"):
        PolicyFiles(f"policies/{name}").effective(PIPELINE)


def test_an_unknown_protocol() -> None:
    with pytest.raises(PolicyError, match="The policy folder nosuch://x cannot be read: Protocol not known"):
        PolicyFiles("nosuch://x").effective(PIPELINE)


def test_making_one_reads_nothing_and_shows_no_secret(policies: Path) -> None:
    assert repr(PolicyFiles("nowhere")) == "PolicyFiles(url='nowhere')"
    assert "hunter2" not in repr(PolicyFiles("s3://bucket/p", storage_options={"secret": "hunter2"}))


def test_a_relative_folder_stays_where_it_was_named(policies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (policies / "organization.yaml").write_text(GOOD)
    lay_out(policies.parent, {"trial.yaml": "owner: x\npeople: {tess: {}}\n"})
    source = PolicyFiles("policies", trial_people="trial.yaml")
    monkeypatch.chdir("/")

    assert source.effective(PIPELINE).settings["roc_auc.floor"].file == "policies/organization.yaml"
    assert list(source.people()) == ["tess"]


@pytest.mark.parametrize("url", ["ftp://user:hunter2@host/policies", "", "~/policies"])
def test_a_url_that_cannot_be_meant(url: str) -> None:
    with pytest.raises(PolicyError, match="The policy folder") as caught:
        PolicyFiles(url)
    assert "hunter2" not in str(caught.value)


# People


def test_people_of_the_trial_file_are_marked(policies: Path) -> None:
    lay_out(policies, as_files({}, {"olga": person("olga")}))
    trial = policies.parent / "trial.yaml"
    source = PolicyFiles("policies", trial_people=str(trial))
    assert {p.name: p.trial for p in source.people().values()} == {"olga": False}, "the file may be absent"

    trial.write_text(as_files({}, {"tess": person("tess")})["people.yaml"])

    assert {p.name: p.trial for p in source.people().values()} == {"olga": False, "tess": True}
    assert (source.people()["tess"].file, source.people()["tess"].line) == (str(trial), 3)


def test_nobody_takes_the_name_of_another_by_the_trial_file(policies: Path) -> None:
    lay_out(policies, as_files({}, {"olga": person("olga")}))
    trial = policies.parent / "trial.yaml"
    trial.write_text("owner: me\npeople:\n  olga: {roles: [model_reviewer]}\n")

    with pytest.raises(PolicyError) as error:
        PolicyFiles("policies", trial_people=trial).effective(PIPELINE)

    assert f"{trial}:3: people.olga: the name 'olga', which olga (policies/people.yaml:3) has too" in str(error.value)


def test_a_key_is_the_same_in_upper_case(policies: Path) -> None:
    lay_out(
        policies,
        {
            "people.yaml": "owner: x\npeople:\n"
            f"  ada: {{keys: [{{ed25519: '{'AB' * 32}', effective_from: 2026-01-01}}]}}\n"
            f"  bob: {{keys: [{{ed25519: '{'ab' * 32}', effective_from: 2026-01-01}}]}}\n"
        },
    )

    with pytest.raises(PolicyError, match=r"people\.yaml:4: people\.bob: the key abababab…, which ada "):
        PolicyFiles("policies").people()
