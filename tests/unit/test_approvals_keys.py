"""Key files: private, encrypted when asked, never overwritten; and the people file's entries for them."""

from datetime import date
from pathlib import Path

import pytest

from ml_assets.approvals.keys import KeyFileSigner, PersonEntry, add_trial_person, key_files, write_new_key
from ml_assets.approvals.signing import verify_signature
from ml_assets.errors import ApprovalError, Problem
from ml_assets.interfaces import PublicKey
from ml_assets.policy.people import read_people
from ml_assets.yaml_positions import load_yaml
from tests.unit.test_approvals_world import KEYS_FROM, World, reviewer


def refused(path: Path, **options: object) -> tuple[str, str]:
    with pytest.raises(ApprovalError) as error:
        KeyFileSigner(path, person="olga", **options)  # pyright: ignore[reportArgumentType]
    return error.value.reason, str(error.value)


@pytest.mark.parametrize("passphrase", [None, "correct horse", "größe 🐎"])
def test_a_new_key_signs_what_its_public_half_verifies(tmp_path: Path, passphrase: str | None) -> None:
    path = tmp_path / "keys" / "olga.pem"
    key = write_new_key(path, passphrase=passphrase)
    signer = KeyFileSigner(path, person="olga", passphrase=lambda: passphrase or "never asked")

    world = World(people={"olga": reviewer("olga", keys=(PublicKey(value=key, effective_from=KEYS_FROM),))})
    statement = world.sign(signer, world.waiting())

    assert (signer.person, signer.key) == ("olga", key)
    assert verify_signature(statement, world.people).name == "olga"
    assert len(key) == 64


def test_a_key_file_is_for_its_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "keys" / "olga.pem"
    write_new_key(path, passphrase=None)

    assert path.stat().st_mode & 0o777 == 0o600
    assert path.parent.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("mode", [0o644, 0o640, 0o604, 0o660, 0o666])
def test_a_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "olga.pem"
    write_new_key(path, passphrase=None)
    path.chmod(mode)

    assert refused(path) == (
        "open_key",
        f"{path} has mode {mode:04o}; expected 0600, so that nobody else reads it: chmod 600 {path}",
    )


def test_a_link_does_not_hide_the_mode(tmp_path: Path) -> None:
    path, link = tmp_path / "olga.pem", tmp_path / "link.pem"
    write_new_key(path, passphrase=None)
    path.chmod(0o644)
    link.symlink_to(path)

    assert refused(link)[0] == "open_key"


def test_a_key_is_never_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "olga.pem"
    write_new_key(path, passphrase=None)
    before = path.read_bytes()

    with pytest.raises(ApprovalError, match="exists already") as error:
        write_new_key(path, passphrase=None)

    assert error.value.reason == "key_exists"
    assert path.read_bytes() == before


def test_every_key_is_another(tmp_path: Path) -> None:
    assert len({write_new_key(tmp_path / f"{n}.pem", passphrase=None) for n in range(5)}) == 5


def test_the_private_half_is_in_no_text(tmp_path: Path) -> None:
    path = tmp_path / "olga.pem"
    write_new_key(path, passphrase=None)
    signer = KeyFileSigner(path, person="olga")

    assert repr(signer) == f"KeyFileSigner(person='olga', key={signer.key!r})"


def test_a_wrong_passphrase_is_told_without_it(tmp_path: Path) -> None:
    path = tmp_path / "olga.pem"
    write_new_key(path, passphrase="correct horse")  # noqa: S106 it guards nothing

    word, message = refused(path, passphrase=lambda: "battery staple")
    assert word == "bad_key"
    assert "battery" not in message
    assert refused(path)[0] == "bad_key"


@pytest.mark.parametrize(
    "content", [b"", b"no key", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", b"x" * 100_000]
)
def test_a_file_that_is_no_key_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "olga.pem"
    path.write_bytes(content)
    path.chmod(0o600)

    assert refused(path)[0] == "bad_key"


def test_a_key_of_another_kind_is_refused(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key

    path = tmp_path / "olga.pem"
    pem = generate_private_key(SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path.write_bytes(pem)
    path.chmod(0o600)

    assert refused(path) == ("bad_key", f"{path} holds a key of another kind; expected Ed25519 in PKCS8.")


def test_a_missing_key_says_how_to_make_one(tmp_path: Path) -> None:
    word, message = refused(tmp_path / "olga.pem")

    assert word == "no_key"
    assert "`ml-assets access new-key NAME` makes one" in message


def test_keys_are_found_by_person(tmp_path: Path) -> None:
    for name in ("pavel", "olga"):
        write_new_key(tmp_path / f"{name}.pem", passphrase=None)
    (tmp_path / "notes.txt").write_text("x")

    assert list(key_files(tmp_path)) == ["olga", "pavel"]
    assert key_files(tmp_path / "absent") == {}


def entry(name: str, key: str = "e" * 64, **changes: tuple[str, ...]) -> PersonEntry:
    given = {"logins": (), "roles": ("model_reviewer",), "teams": ("*",)} | changes
    return PersonEntry(name=name, key=key, effective_from=date(2026, 11, 25), **given)


@pytest.mark.parametrize("key", ["1" * 64, "1e5" + "0" * 61, "abcdef01" * 8])
def test_the_printed_entry_is_what_the_people_file_takes(key: str) -> None:
    given = entry("olga", key, logins=("olga@example.com", "oz"), teams=("births", "flights"))
    problems: list[Problem] = []

    (person,) = read_people(load_yaml(f"owner: x\npeople:\n{given.to_yaml()}\n", file="people.yaml"), problems)

    assert problems == []
    assert (person.name, person.logins) == ("olga", ("olga@example.com", "oz"))
    assert (person.roles, person.teams) == (("model_reviewer",), ("births", "flights"))
    assert person.keys[0].value == key


@pytest.mark.parametrize("name", ["*", "true", "Null", "12", "1e5", "a: b", "x, y", "# no", "größe", "a\\b", 'say "x"'])
def test_any_text_of_an_entry_is_read_back_as_text(name: str) -> None:
    text = entry(name, logins=(name,)).to_yaml()

    found = load_yaml(f"people:\n{text}\n", file="people.yaml").data["people"]

    assert list(found) == [name]
    assert found[name]["logins"] == [name]


def trial_people(file: Path) -> dict[str, list[str]]:
    problems: list[Problem] = []
    found = read_people(load_yaml(file.read_text(), file=str(file)), problems, trial=True)
    assert problems == []
    return {person.name: [key.value for key in person.keys] for person in found}


def test_trial_people_are_added_beside_each_other(tmp_path: Path) -> None:
    file = tmp_path / "state" / "people.yaml"

    add_trial_person(file, entry("olga", "1" * 64))
    add_trial_person(file, entry("pavel", "2" * 64, roles=("risk",)))
    add_trial_person(file, entry("olga", "3" * 64))

    assert trial_people(file) == {"olga": ["1" * 64, "3" * 64], "pavel": ["2" * 64]}
    assert file.read_text().startswith("# Keys for trying things out on this machine.")
    assert [path.name for path in file.parent.iterdir()] == ["people.yaml"]


@pytest.mark.parametrize("text", ["people: []\n", "- olga\n", "people: {olga: 3}\n"])
def test_a_trial_file_of_another_form_is_not_touched(tmp_path: Path, text: str) -> None:
    file = tmp_path / "people.yaml"
    file.write_text(text)

    with pytest.raises(ApprovalError, match="is no people file"):
        add_trial_person(file, entry("olga"))

    assert file.read_text() == text


def test_a_trial_file_that_is_no_yaml_is_not_touched(tmp_path: Path) -> None:
    file = tmp_path / "people.yaml"
    file.write_text("people: {")

    with pytest.raises(ApprovalError, match=r"is no people file: .*expected"):
        add_trial_person(file, entry("olga"))

    assert file.read_text() == "people: {"
