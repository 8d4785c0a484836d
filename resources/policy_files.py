"""PolicyFiles: thresholds from the YAML files of one folder, read anew at each call."""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast, get_args

from ml_assets.errors import PolicyError, Problem, SpecError
from ml_assets.interfaces import Severity, Threshold
from ml_assets.reading.wording import count, did_you_mean, found, quoted
from ml_assets.yaml_positions import MAX_BYTES, PositionedYaml, YamlPath, dotted, load_yaml
from resources.atomic_files import local_folder

_FILE_FIELDS = ("owner", "thresholds")
_THRESHOLD_FIELDS = ("value", "severity", "reason")
_SEVERITIES = get_args(Severity)
_NAME = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)*")


@dataclass(frozen=True)
class PolicyFiles:
    """A `PolicySource` over the `*.yaml` files of a folder; folders in it and hidden files are passed over.

    A file names its owner and gives each threshold a value, a reason and, if it only warns, a severity:

        owner: ml-platform
        thresholds:
          roc_auc.floor:
            value: 0.55          # null for a threshold that carries no number
            severity: error      # error (default) or warning
            reason: Below this a model is hardly better than chance.

    Nothing is kept between calls: the files are small, and a decision must see the policy of its own time.
    Making one does no input or output.

    Attributes:
        url: A folder, or a URL such as "s3://bucket/policies". Passwords belong in `storage_options`.
        storage_options: Arguments for the fsspec file system, such as keys; never shown.
    """

    url: str
    storage_options: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False, kw_only=True)
    _folder: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if re.search(r"://[^/]*:[^/]*@", self.url):
            raise PolicyError("The policy folder's URL holds a password; pass it in storage_options instead.")
        if not self.url or self.url.startswith("~"):
            raise PolicyError(f"The policy folder is {self.url!r}; expected the path of a folder, or a URL.")
        # Absolute at once: a later change of the working folder must not lead to another policy.
        object.__setattr__(self, "_folder", str(local_folder(self.url) or self.url))

    def thresholds(self) -> dict[str, Threshold]:
        """Read the policy now and return its thresholds by name; a folder without files has none.

        Raises:
            PolicyError: If the folder or a file cannot be read, or files have problems: all are told at once.
        """
        problems: list[Problem] = []
        result: dict[str, Threshold] = {}
        for file, content in self._read_all(problems):
            for threshold in _parse(file, content, problems):
                first = result.setdefault(threshold.name, threshold)
                if first is not threshold:
                    problems.append(_set_twice(first, threshold))
        if problems:
            raise _all_at_once(problems)
        return result

    def _read_all(self, problems: list[Problem]) -> Iterator[tuple[str, bytes]]:
        """Yield each policy file's name for readers and its content, sorted by name."""
        try:
            yield from self._read_files(problems)
        except FileNotFoundError as error:
            raise PolicyError(
                f"The policy folder {self.url} does not exist, or changed while it was read: {error}. "
                "Expected a folder of *.yaml files; an empty one means no thresholds."
            ) from error
        except (OSError, ImportError, ValueError) as error:
            raise PolicyError(f"The policy folder {self.url} cannot be read: {error}") from error

    def _read_files(self, problems: list[Problem]) -> Iterator[tuple[str, bytes]]:
        import fsspec

        files, folder = fsspec.url_to_fs(self._folder, **self.storage_options)
        files.invalidate_cache()  # object stores remember listings
        if not files.isdir(folder):
            raise FileNotFoundError(f"no folder at {self.url}")
        for entry in sorted(files.ls(folder, detail=True), key=lambda entry: entry["name"]):
            name = entry["name"].rstrip("/").rpartition("/")[2]
            shown = f"{self.url.rstrip('/')}/{name}"
            if name.startswith(".") or not name.endswith((".yaml", ".yml")) or files.isdir(entry["name"]):
                continue
            if problem := _unwanted(shown, entry["size"]):
                problems.append(problem)
            else:
                yield shown, files.cat_file(entry["name"])


def _unwanted(file: str, n_bytes: int) -> Problem | None:
    """Return why a file is not even opened, or None."""
    if file.endswith(".yml"):
        # Passing it over would leave its thresholds out without a word.
        hint = f"rename it to {file.removesuffix('.yml')}.yaml"
        return Problem(file=file, line=0, field="", found="the suffix .yml", expected="the suffix .yaml", hint=hint)
    if n_bytes > MAX_BYTES:
        limit = f"at most {MAX_BYTES:,} bytes"
        return Problem(file=file, line=0, field="", found=f"{n_bytes:,} bytes", expected=limit)
    return None


def _parse(file: str, content: bytes, problems: list[Problem]) -> list[Threshold]:
    """Return the thresholds of one file that are right, and add what is wrong to the problems."""
    try:
        document = load_yaml(content.decode(), file=file)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        wrong = f"the byte 0x{content[error.start]:02x}, which is not UTF-8"
        problems.append(Problem(file=file, line=line, field="", found=wrong, expected="text in UTF-8"))
        return []
    except SpecError as error:
        problems.extend(error.problems)
        return []
    return _PolicyFile(document, problems).thresholds()


class _PolicyFile:
    """Checks one parsed file against the format."""

    def __init__(self, document: PositionedYaml, problems: list[Problem]) -> None:
        self._document = document
        self._problems = problems

    def thresholds(self) -> list[Threshold]:
        data = self._mapping((), self._document.data, _FILE_FIELDS)
        if data is None:
            return []
        self._text(("owner",), data)
        if "thresholds" not in data:
            self._wrong(("thresholds",), "no thresholds", "a mapping of thresholds by name")
            return []
        bodies = self._mapping(("thresholds",), data["thresholds"])
        read = [self._threshold(name, body) for name, body in (bodies or {}).items()]
        return [threshold for threshold in read if threshold is not None]

    def _threshold(self, name: str, body: Any) -> Threshold | None:
        """Return a threshold; a wrong field holds a stand-in, which nobody sees: the problem is told."""
        path = ("thresholds", name)
        if not _NAME.fullmatch(name):
            names = "lower-case letters, digits and underscores, joined by dots, such as roc_auc.floor"
            self._wrong(path, f"the name {quoted(name)}", names)
        fields = self._mapping(path, body, _THRESHOLD_FIELDS)
        if fields is None:
            return None
        severity = fields.get("severity", "error")
        if severity not in _SEVERITIES:
            hint = did_you_mean(severity, _SEVERITIES) if isinstance(severity, str) else ""
            self._wrong((*path, "severity"), found(severity), " or ".join(_SEVERITIES), hint)
        return Threshold(
            name=name,
            value=self._value((*path, "value"), fields),
            severity=cast(Severity, severity),
            reason=self._text((*path, "reason"), fields),
            file=self._document.file,
            line=self._document.line(path),
        )

    def _mapping(self, path: YamlPath, value: Any, fields: Sequence[str] = ()) -> dict[str, Any] | None:
        """Return a mapping, or None when it is none; fields other than the given ones are problems."""
        if not isinstance(value, dict):
            names = f" with {', '.join(fields)}" if fields else " of thresholds by name"
            self._wrong(path, found(value), f"a mapping{names}")
            return None
        for name in value:
            if fields and name not in fields:
                hint = did_you_mean(name, fields)
                self._wrong((*path, name), "an unknown field", f"one of {', '.join(fields)}", hint)
        return value

    def _text(self, path: YamlPath, fields: Mapping[str, Any]) -> str:
        name = str(path[-1])
        value = fields.get(name)
        if isinstance(value, str) and value.strip():
            return value.strip()
        self._wrong(path, found(value) if name in fields else f"no {name}", "a text that is not empty")
        return ""

    def _value(self, path: YamlPath, fields: Mapping[str, Any]) -> float | None:
        value = fields.get("value")
        if value is None and "value" in fields:
            return None
        # Not math.isfinite: a whole number may be too large for a float, which it answers by raising.
        if isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= sys.float_info.max:
            return float(value)
        wrong = found(value) if "value" in fields else "no value"
        number = isinstance(value, str) and re.fullmatch(r"[-+]?[0-9]+(\.[0-9]+)?", value)
        hint = "remove the quotes" if number else ""
        self._wrong(path, wrong, "a finite number, or null for a threshold without one", hint)
        return None

    def _wrong(self, path: YamlPath, found: str, expected: str, hint: str = "") -> None:
        file, line = self._document.file, self._document.line(path)
        self._problems.append(
            Problem(file=file, line=line, field=dotted(path), found=found, expected=expected, hint=hint)
        )


def _set_twice(first: Threshold, second: Threshold) -> Problem:
    return Problem(
        file=second.file,
        line=second.line,
        field=dotted(("thresholds", second.name)),
        found=f"{second.name}, which {first.file}:{first.line} sets too",
        expected="each threshold in one file",
        hint="remove one of the two",
    )


def _all_at_once(problems: Sequence[Problem]) -> PolicyError:
    lines = sorted(problems, key=lambda problem: (problem.file, problem.line, problem.field))
    head = f"{count(len(lines), 'problem')} in the policy files:"
    return PolicyError("\n".join([head, *(f"  {problem}" for problem in lines)]))
