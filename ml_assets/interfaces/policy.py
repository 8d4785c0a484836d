"""What is asked of governance: settings that hold for a pipeline at an instant, and the people who may decide."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol

from ml_assets.errors import PolicyError
from ml_assets.interfaces.compute import ComputeRules
from ml_assets.interfaces.names import PipelinePath, Severity

SettingKind = Literal["floor", "ceiling", "allowed", "required", "flag"]
"""Which way is stricter: up, down, a smaller set, a larger set, true."""

SettingValue = float | bool | tuple[str, ...] | None
Level = Literal["built-in", "organization", "domain", "team", "pipeline"]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """One value of the policy, and where it stands.

    Attributes:
        name: Such as "roc_auc.floor" or "approval.roles".
        value: A number in the setting's own unit, a flag, or sorted names; None counts as 0 for a number.
        kind: Its direction; see `SettingKind`.
        severity: For a gate: "error" closes it, "warning" is shown only.
        reason: Why it has this value.
        owner: Who answers for it.
        level: Level of the tree that sets it.
        file: Policy file; "built-in" for a default of the library.
        line: 1-based line in it; 0 for a default.
        locked: Whether lower levels may only tighten it.
        unwaivable: Whether nobody may waive the gate.
        effective_from: From when it holds (UTC); None for a default.
        expires: When it ends (UTC); None for never.
    """

    name: str
    value: SettingValue
    kind: SettingKind
    severity: Severity = "error"
    reason: str
    owner: str = ""
    level: Level = "organization"
    file: str
    line: int
    locked: bool = False
    unwaivable: bool = False
    effective_from: datetime | None = None
    expires: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class EffectivePolicy:
    """Everything that holds for one pipeline at one instant.

    Attributes:
        pipeline: (team, pipeline).
        settings: Name → the setting in force, with the library's defaults.
        chains: Name → every level's setting in force, from the built-in one down to the one that counts.
        digest: SHA-256 of names, values, severities and marks of all settings in force: 64 hexadecimal digits.
    """

    pipeline: PipelinePath
    settings: Mapping[str, Setting]
    chains: Mapping[str, tuple[Setting, ...]] = field(default_factory=dict, repr=False)
    digest: str

    def number(self, name: str) -> float:
        """Return a number; a null counts as 0. Raises PolicyError when it is not set or no number."""
        value = self._setting(name).value
        if value is None:
            return 0.0
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise PolicyError(f"The policy's {name} is {value!r}; expected a number.")
        return float(value)

    def flag(self, name: str) -> bool:
        """Return a flag; raises PolicyError when it is not set or no flag."""
        value = self._setting(name).value
        if not isinstance(value, bool):
            raise PolicyError(f"The policy's {name} is {value!r}; expected true or false.")
        return value

    def names(self, name: str) -> tuple[str, ...]:
        """Return a set of names, sorted; raises PolicyError when it is not set or no set."""
        value = self._setting(name).value
        if not isinstance(value, tuple):
            raise PolicyError(f"The policy's {name} is {value!r}; expected a list of names.")
        return value

    def _setting(self, name: str) -> Setting:
        if name not in self.settings:
            raise PolicyError(
                f"The policy of {'/'.join(self.pipeline)} has no {name}; it has "
                f"{', '.join(sorted(self.settings)) or 'nothing'}. Add it to a policy file."
            )
        return self.settings[name]


@dataclass(frozen=True, kw_only=True)
class PublicKey:
    """One Ed25519 public key of a person.

    Attributes:
        value: The 32 bytes as 64 hexadecimal digits.
        effective_from: From when what it signs counts (UTC).
        expires: From when what it signs no longer counts; None for never. What it signed before still counts.
    """

    value: str
    effective_from: datetime
    expires: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Person:
    """Somebody who may decide.

    Attributes:
        name: Such as "olga".
        logins: Names under which the person launches runs, beside `name`.
        roles: Such as "model_reviewer".
        teams: Teams the roles hold for; "*" for all.
        keys: Public keys.
        file: Where the person is declared.
        line: 1-based line in it.
        trial: Whether the key was made on this machine to try things out, outside of the policy tree.
    """

    name: str
    logins: tuple[str, ...] = ()
    roles: tuple[str, ...] = ()
    teams: tuple[str, ...] = ()
    keys: tuple[PublicKey, ...] = ()
    file: str = ""
    line: int = 0
    trial: bool = False


class PolicySource(Protocol):
    """Where policies are read at run time: never earlier than the decision that needs them, never from a cache."""

    def effective(self, pipeline: PipelinePath, at: datetime | None = None) -> EffectivePolicy:
        """Read the policy tree now and return what holds for a pipeline at an instant (now, when None).

        Raises:
            PolicyError: If a file cannot be parsed, has an unknown key, or loosens what an upper level locked;
                every problem is told at once, with file and line.
        """
        ...

    def people(self) -> Mapping[str, Person]:
        """Read who may decide, by name; raises PolicyError as `effective` does."""
        ...

    def compute(self) -> ComputeRules:
        """Read what holds of compute profiles and of sharing; without such rules there are no profiles and no limits.

        Raises:
            PolicyError: If the rules cannot be read or are wrong; every problem is told at once.
        """
        ...
