"""PolicyFiles and FakePolicySource keep the promises of a policy source; errors name file, line and fix."""

import os
import uuid
from collections.abc import Mapping
from pathlib import Path

import fsspec
import pytest
import yaml

from ml_assets.errors import PolicyError
from ml_assets.interfaces import PolicySource, Threshold
from ml_assets.testing.policy_source import (
    FakePolicySource,
    MakePolicySource,
    PolicySourceSuite,
)
from resources.policy_files import PolicyFiles

REPOSITORY = Path(__file__).parents[2]
GOOD = "owner: ml-platform\nthresholds:\n  roc_auc.floor:\n    value: 0.55\n    reason: Better than chance.\n"


def as_yaml(thresholds: Mapping[str, Threshold]) -> str:
    entries = {name: {"value": t.value, "severity": t.severity, "reason": t.reason} for name, t in thresholds.items()}
    return yaml.safe_dump({"owner": "ml-platform", "thresholds": entries}, allow_unicode=True)


class TestPolicyFiles(PolicySourceSuite):
    @pytest.fixture
    def make_source(self, tmp_path: Path) -> MakePolicySource:
        def make(thresholds: Mapping[str, Threshold]) -> PolicySource:
            (tmp_path / "organization.yaml").write_text(as_yaml(thresholds), encoding="utf-8")
            return PolicyFiles(str(tmp_path))

        return make


class TestPolicyFilesByUrl(PolicySourceSuite):
    @pytest.fixture
    def make_source(self) -> MakePolicySource:
        def make(thresholds: Mapping[str, Threshold]) -> PolicySource:
            url = f"memory://policies-{uuid.uuid4().hex}"
            with fsspec.open(f"{url}/organization.yaml", "w", encoding="utf-8") as file:
                file.write(as_yaml(thresholds))  # pyright: ignore[reportAttributeAccessIssue]
            return PolicyFiles(url)

        return make


class TestFakePolicySource(PolicySourceSuite):
    @pytest.fixture
    def make_source(self) -> MakePolicySource:
        return FakePolicySource


def test_a_fake_takes_bare_values() -> None:
    found = FakePolicySource({"roc_auc.floor": 0.55, "flag": None}).thresholds()

    assert (found["roc_auc.floor"].value, found["roc_auc.floor"].severity) == (0.55, "error")
    assert (found["flag"].value, found["flag"].line) == (None, 2)


@pytest.fixture
def policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder `policies` in the working folder."""
    monkeypatch.chdir(tmp_path)
    folder = tmp_path / "policies"
    folder.mkdir()
    return folder


def error_of(folder: Path, **files: str) -> str:
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    with pytest.raises(PolicyError) as caught:
        PolicyFiles("policies").thresholds()
    return str(caught.value)


def in_file(*lines: str) -> str:
    return "\n".join(["owner: x", "thresholds:", "  a.floor:", *(f"    {line}" for line in lines), ""])


def test_the_policies_of_this_repository_are_right() -> None:
    found = PolicyFiles(str(REPOSITORY / "policies")).thresholds()

    assert "roc_auc.floor" in found
    assert all(t.reason and t.file.endswith(".yaml") for t in found.values())


def test_places_are_named_as_a_reader_would_open_them(policies: Path) -> None:
    (policies / "a.yaml").write_text(f"# comment\n\n{GOOD}")

    found = PolicyFiles("policies/").thresholds()["roc_auc.floor"]

    assert (found.file, found.line) == ("policies/a.yaml", 5)


def test_files_are_read_at_each_call(policies: Path) -> None:
    source = PolicyFiles("policies")
    assert source.thresholds() == {}

    (policies / "a.yaml").write_text(GOOD)
    assert source.thresholds()["roc_auc.floor"].value == 0.55

    # Same size and same time of change: what a cache by these two would miss.
    status = (policies / "a.yaml").stat()
    (policies / "a.yaml").write_text(GOOD.replace("0.55", "0.65"))
    os.utime(policies / "a.yaml", ns=(status.st_atime_ns, status.st_mtime_ns))
    assert source.thresholds()["roc_auc.floor"].value == 0.65

    (policies / "a.yaml").unlink()
    assert source.thresholds() == {}


def test_only_yaml_files_of_the_folder_itself_count(policies: Path) -> None:
    (policies / "b.yaml").write_text(GOOD.replace("roc_auc", "wape"))
    (policies / "a.yaml").write_text(GOOD)
    (policies / "README.md").write_text("not: [yaml")
    (policies / ".#a.yaml").write_text("an editor's: [lock")
    (policies / "team").mkdir()
    (policies / "team" / "c.yaml").write_text("not: [read")
    (policies / "folder.yaml").mkdir()

    assert list(PolicyFiles("policies").thresholds()) == ["roc_auc.floor", "wape.floor"]


def test_a_link_to_nothing_is_not_passed_over(policies: Path) -> None:
    (policies / "a.yaml").symlink_to(policies / "gone.yaml")

    with pytest.raises(PolicyError, match=r"changed while it was read: .*a\.yaml"):
        PolicyFiles("policies").thresholds()


def test_mounted_files_are_links(policies: Path) -> None:
    (policies / "..data").mkdir()
    (policies / "..data" / "a.yaml").write_text(GOOD)
    (policies / "a.yaml").symlink_to(Path("..data") / "a.yaml")

    assert list(PolicyFiles("policies").thresholds()) == ["roc_auc.floor"]


def test_the_same_threshold_in_two_files(policies: Path) -> None:
    assert error_of(policies, a=GOOD, b=f"# one line down\n{GOOD}") == (
        "1 problem in the policy files:\n"
        "  policies/b.yaml:4: thresholds.roc_auc.floor: roc_auc.floor, which policies/a.yaml:3 sets too; "
        "expected each threshold in one file\n    hint: remove one of the two"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            in_file("value: 1", "reson: x"),
            "2 problems in the policy files:\n"
            "  policies/a.yaml:3: thresholds.a.floor.reason: no reason; expected a text that is not empty\n"
            "  policies/a.yaml:5: thresholds.a.floor.reson: an unknown field; expected one of value, "
            "severity, reason\n    hint: did you mean 'reason'?",
        ),
        (
            in_file("value: '0.5'", "reason: x"),
            "  policies/a.yaml:4: thresholds.a.floor.value: '0.5' (text); expected a finite number, or null "
            "for a threshold without one\n    hint: remove the quotes",
        ),
        (in_file("reason: x"), "a.yaml:3: thresholds.a.floor.value: no value; expected a finite number"),
        (
            in_file("value: true", "reason: x"),
            "a.yaml:4: thresholds.a.floor.value: true (true/false); expected",
        ),
        (
            in_file("value: .nan", "reason: x"),
            "a.yaml:4: thresholds.a.floor.value: nan (number); expected a fin",
        ),
        (in_file("value: -.inf", "reason: x"), "a.yaml:4: thresholds.a.floor.value: -inf (number); expected"),
        (in_file(f"value: {'9' * 309}", "reason: x"), "a.yaml:4: thresholds.a.floor.value: 999"),
        (
            in_file("value: [1]", "reason: x"),
            "a.yaml:4: thresholds.a.floor.value: a list of 1 item; expected",
        ),
        (in_file("value: 15%", "reason: x"), "a.yaml:4: thresholds.a.floor.value: '15%' (text); expected"),
        (
            in_file("value: 1", "severity: eror", "reason: x"),
            "a.yaml:5: thresholds.a.floor.severity: 'eror' (text); expected error or warning\n"
            "    hint: did you mean 'error'?",
        ),
        (in_file("value: 1", "severity:", "reason: x"), "a.yaml:5: thresholds.a.floor.severity: nothing"),
        (
            in_file("value: 1", "severity: [error]", "reason: x"),
            "a.yaml:5: thresholds.a.floor.severity: a list",
        ),
        (
            in_file("value: 1", "reason: ' '"),
            "a.yaml:5: thresholds.a.floor.reason: ' ' (text); expected a text",
        ),
        (in_file("value: 1", "reason: 5"), "a.yaml:5: thresholds.a.floor.reason: 5 (whole number); expected"),
        (
            "owner: x\nthresholds:\n  a.floor: 0.5\n",
            "a.yaml:3: thresholds.a.floor: 0.5 (number); expected a mapping with value, severity, reason",
        ),
        (
            "owner: x\nthresholds:\n  ROC AUC:\n    value: 1\n    reason: x\n",
            "a.yaml:3: thresholds.ROC AUC: the name 'ROC AUC'; expected lower-case letters",
        ),
        (
            "owner: x\nthresholds:\n",
            "a.yaml:2: thresholds: nothing (the value is empty); expected a mapping of",
        ),
        (
            "owner: x\nthresholds: []\n",
            "a.yaml:2: thresholds: an empty list; expected a mapping of thresholds",
        ),
        ("owner: x\n", "a.yaml:1: thresholds: no thresholds; expected a mapping of thresholds by name"),
        ("owner: ''\nthresholds: {}\n", "a.yaml:1: owner: '' (text); expected a text that is not empty"),
        ("thresholds: {}\n", "a.yaml:1: owner: no owner; expected a text that is not empty"),
        (
            "owner: x\ntresholds: {}\n",
            "a.yaml:2: tresholds: an unknown field; expected one of owner, thresholds\n"
            "    hint: did you mean 'thresholds'?",
        ),
        ("", "a.yaml:1: nothing (the value is empty); expected a mapping with owner, thresholds"),
        ("- a\n", "a.yaml:1: a list of 1 item; expected a mapping with owner, thresholds"),
        (
            f"{GOOD}  roc_auc.floor: 1\n",
            "a.yaml:6: thresholds.roc_auc.floor: the key 'roc_auc.floor' a second",
        ),
        ("owner: [x\n", "a.yaml:1: while parsing a flow sequence"),
        ("owner: &a x\nthresholds: *a\n", "a.yaml:2: thresholds: the alias *a; expected the value itself"),
    ],
)
def test_errors_name_place_found_and_expected(policies: Path, text: str, message: str) -> None:
    assert message in error_of(policies, a=text)


def test_all_problems_of_all_files_at_once(policies: Path) -> None:
    error = error_of(policies, a="owner: 1\nthresholds: 2\n", b="owner: [\n", c=GOOD, d=GOOD, e="")

    lines = [line.partition(": ")[0].strip() for line in error.splitlines() if "policies/" in line.split(":")[0]]
    assert error.startswith("5 problems in the policy files:")
    assert lines == [f"policies/{place}" for place in ("a.yaml:1", "a.yaml:2", "b.yaml:1", "d.yaml:3", "e.yaml:1")]


def test_a_file_with_another_suffix_is_not_passed_over(policies: Path) -> None:
    (policies / "a.yml").write_text(GOOD)

    with pytest.raises(PolicyError, match=r"policies/a\.yml: the suffix \.yml; expected the suffix \.yaml\n") as e:
        PolicyFiles("policies").thresholds()
    assert "rename it to policies/a.yaml" in str(e.value)


def test_a_file_that_is_too_large_is_not_read(policies: Path) -> None:
    with (policies / "a.yaml").open("wb") as file:
        file.truncate(5_000_000_000)  # sparse: reading it would take all memory

    with pytest.raises(PolicyError, match=r"a\.yaml: 5,000,000,000 bytes; expected at most 1,000,000 bytes"):
        PolicyFiles("policies").thresholds()


def test_a_file_in_another_encoding(policies: Path) -> None:
    (policies / "a.yaml").write_bytes("owner: x\nthresholds: {} # größer\n".encode("latin-1"))

    with pytest.raises(PolicyError, match=r"a\.yaml:2: the byte 0xf6, which is not UTF-8; expected text in UTF-8"):
        PolicyFiles("policies").thresholds()


@pytest.mark.parametrize("name", ["nowhere", "file.yaml"])
def test_a_folder_that_does_not_exist_is_not_an_empty_policy(policies: Path, name: str) -> None:
    (policies / "file.yaml").write_text(GOOD)

    with pytest.raises(PolicyError, match=f"The policy folder policies/{name} does not exist"):
        PolicyFiles(f"policies/{name}").thresholds()


def test_an_unknown_protocol() -> None:
    with pytest.raises(PolicyError, match="The policy folder nosuch://x cannot be read: Protocol not known"):
        PolicyFiles("nosuch://x").thresholds()


def test_making_one_reads_nothing_and_shows_no_secret(policies: Path) -> None:
    assert repr(PolicyFiles("nowhere")) == "PolicyFiles(url='nowhere')"
    assert "hunter2" not in repr(PolicyFiles("s3://bucket/p", storage_options={"secret": "hunter2"}))


def test_a_relative_folder_stays_where_it_was_named(policies: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (policies / "a.yaml").write_text(GOOD)
    source = PolicyFiles("policies")
    monkeypatch.chdir("/")

    assert list(source.thresholds()) == ["roc_auc.floor"]


@pytest.mark.parametrize("url", ["ftp://user:hunter2@host/policies", "", "~/policies"])
def test_a_url_that_cannot_be_meant(url: str) -> None:
    with pytest.raises(PolicyError, match="The policy folder") as caught:
        PolicyFiles(url)
    assert "hunter2" not in str(caught.value)
