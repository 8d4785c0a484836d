"""Private keys in files that only their owner can read, and the people file's entry for the public half."""

import json
import os
import re
import stat
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_assets.errors import ApprovalError, SpecError
from ml_assets.yaml_positions import load_yaml

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

SUFFIX = ".pem"
MAX_BYTES = 10_000
_PLAIN = re.compile(r"(?!(true|false|null)$)[a-z][a-z0-9_.@-]*")
_TRIAL_HEADER = "# Keys for trying things out on this machine. Whoever can write this file can approve here.\n"


class KeyFileSigner:
    """A `Signer` whose key lies in a PEM file (PKCS8, with a passphrase or without) of mode 0600.

    Args:
        path: The file.
        person: Whose key it is, as in the people file.
        passphrase: Asked only when the file is encrypted.

    Raises:
        ApprovalError: "no_key" when there is no such file; "open_key" when others can read it; "bad_key" when it
            holds no Ed25519 key or the passphrase is wrong.
    """

    def __init__(self, path: Path, *, person: str, passphrase: Callable[[], str] | None = None) -> None:
        self._person = person
        self._private = _private_key(path, passphrase)

    def __repr__(self) -> str:
        return f"KeyFileSigner(person={self._person!r}, key={self.key!r})"

    @property
    def person(self) -> str:
        """Return the person's name."""
        return self._person

    @property
    def key(self) -> str:
        """Return the public key: 64 hexadecimal digits."""
        return _public_hex(self._private)

    def sign(self, payload: bytes) -> bytes:
        """Return the signature: 64 bytes."""
        return self._private.sign(payload)


def write_new_key(path: Path, *, passphrase: str | None) -> str:
    """Make a key pair, write its private half to a new file of mode 0600, and return the public half.

    Args:
        path: The file; its folders are made with mode 0700.
        passphrase: Encrypts the file; None leaves it open to whoever can read it.

    Returns:
        The public key: 64 hexadecimal digits.

    Raises:
        ApprovalError: "key_exists" when there is a file; it is not touched.
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    private = Ed25519PrivateKey.generate()
    encryption = (
        serialization.NoEncryption()
        if passphrase is None
        else serialization.BestAvailableEncryption(passphrase.encode())
    )
    pem = private.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, encryption)
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError as error:
        raise ApprovalError(
            "key_exists", f"{path} exists already, and a key is never overwritten. Name another file with --out."
        ) from error
    with os.fdopen(descriptor, "wb") as file:
        file.write(pem)
    return _public_hex(private)


def key_files(folder: Path) -> dict[str, Path]:
    """Return the key files of a folder by person: `olga.pem` is olga's."""
    return {path.stem: path for path in sorted(folder.glob(f"*{SUFFIX}"))}


@dataclass(frozen=True, kw_only=True)
class PersonEntry:
    """An entry of a people file for a new key.

    Attributes:
        name: The person.
        logins: Names under which the person launches runs, beside `name`.
        roles: Such as "model_reviewer".
        teams: Teams that the roles hold for; "*" for all.
        key: Public key: 64 hexadecimal digits.
        effective_from: From which day (UTC) the key counts.
    """

    name: str
    logins: Sequence[str]
    roles: Sequence[str]
    teams: Sequence[str]
    key: str
    effective_from: date

    def to_yaml(self) -> str:
        """Return the entry as YAML, indented to stand under `people:`."""
        return "\n".join(
            (
                f"  {_scalar(self.name)}:",
                f"    logins: {_flow(self.logins)}",
                f"    roles: {_flow(self.roles)}",
                f"    teams: {_flow(self.teams)}",
                "    keys:",
                f'      - {{ed25519: "{self.key}", effective_from: {self.effective_from.isoformat()}}}',
            )
        )


def add_trial_person(file: Path, entry: PersonEntry) -> None:
    """Add a person, or a person's further key, to a people file of this machine, which changes at once or not at all.

    Raises:
        ApprovalError: "bad_people" when it holds something else than people.
    """
    import yaml

    document = _trial_document(file)
    person = document["people"].setdefault(entry.name, {"logins": [], "roles": [], "teams": [], "keys": []})
    for name, values in (("logins", entry.logins), ("roles", entry.roles), ("teams", entry.teams)):
        person[name] = sorted({*person.get(name, ()), *values})
    key = {"ed25519": entry.key, "effective_from": entry.effective_from.isoformat()}
    person["keys"] = [*person.get("keys", ()), key]
    file.parent.mkdir(parents=True, exist_ok=True)
    temporary = file.with_name(f".{file.name}.{os.getpid()}.tmp")
    temporary.write_text(_TRIAL_HEADER + yaml.safe_dump(document, sort_keys=True), encoding="utf-8")
    temporary.replace(file)


def _trial_document(file: Path) -> dict[str, Any]:
    if not file.exists():
        return {"owner": "this machine", "people": {}}
    try:
        document = load_yaml(file.read_text(encoding="utf-8"), file=str(file)).data
    except SpecError as error:
        wrong = "; ".join(str(problem) for problem in error.problems)
        raise ApprovalError("bad_people", f"{file} is no people file: {wrong}. Remove or mend it.") from error
    people = document.get("people") if isinstance(document, dict) else None
    if not isinstance(people, dict) or not all(isinstance(person, dict) for person in people.values()):
        raise ApprovalError("bad_people", f"{file} is no people file; expected a mapping `people:`. Remove or mend it.")
    return document


def _flow(names: Sequence[str]) -> str:
    return f"[{', '.join(_scalar(name) for name in names)}]"


def _scalar(text: str) -> str:
    """Return text as YAML reads it back: in quotes unless it can only be a text."""
    return text if _PLAIN.fullmatch(text) else json.dumps(text, ensure_ascii=False)


def _private_key(path: Path, passphrase: Callable[[], str] | None) -> "Ed25519PrivateKey":
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    pem = _read_private(path)
    try:
        encrypted = b"ENCRYPTED" in pem and passphrase is not None
        password = passphrase().encode() if encrypted and passphrase is not None else None
        private = serialization.load_pem_private_key(pem, password=password)
    except (TypeError, ValueError) as error:  # TypeError: it is encrypted, and there is no passphrase
        raise ApprovalError(
            "bad_key", f"{path} cannot be read: it is no PEM key, or the passphrase is wrong."
        ) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise ApprovalError("bad_key", f"{path} holds a key of another kind; expected Ed25519 in PKCS8.")
    return private


def _read_private(path: Path) -> bytes:
    """Return a key file's content; the mode is asked of the file that is read, not of one that has its name."""
    try:
        with path.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode != 0o600:
                raise ApprovalError(
                    "open_key",
                    f"{path} has mode {mode:04o}; expected 0600, so that nobody else reads it: chmod 600 {path}",
                )
            return file.read(MAX_BYTES)
    except (FileNotFoundError, IsADirectoryError) as error:
        raise ApprovalError(
            "no_key", f"There is no key {path}. `ml-assets access new-key NAME` makes one; --key names another file."
        ) from error


def _public_hex(private: "Ed25519PrivateKey") -> str:
    from cryptography.hazmat.primitives import serialization

    return private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw).hex()
