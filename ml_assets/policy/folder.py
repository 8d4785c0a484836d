"""Reads a policy tree from a folder or fsspec URL: which file belongs where, and which does not belong."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_assets.errors import PolicyError, Problem, SpecError
from ml_assets.interfaces import ComputeRules, Level, Person
from ml_assets.policy.compute_file import read_compute
from ml_assets.policy.merge import all_at_once
from ml_assets.policy.people import read_people, told_apart
from ml_assets.policy.reading import read_policy_file
from ml_assets.policy.schema import name_problem
from ml_assets.policy.tree import PolicyFile, PolicyTree
from ml_assets.reading import wording
from ml_assets.yaml_positions import MAX_BYTES, PositionedYaml, load_yaml

if TYPE_CHECKING:
    from fsspec import AbstractFileSystem

ORGANIZATION, PEOPLE, COMPUTE = "organization.yaml", "people.yaml", "compute.yaml"
FOLDERS: Mapping[str, Level] = {"domains": "domain", "teams": "team", "pipelines": "pipeline"}
NAME_PATTERN = r"^[a-z][a-z0-9_]{0,62}$"
LAYOUT = (
    "organization.yaml, people.yaml, compute.yaml, domains/<domain>.yaml, teams/<team>.yaml or "
    "pipelines/<team>/<pipeline>.yaml"
)
_FOR_READERS = (".md", "CODEOWNERS", "LICENSE")
"""What a policy repository holds beside its policies; passed over."""


@dataclass(frozen=True, kw_only=True)
class _Found:
    """One file or folder of the tree.

    Attributes:
        parts: Its path below the root.
        path: Its path in the file system.
        shown: Its path as the reader would open it.
        is_folder: Whether it is a folder.
        n_bytes: Size of a file.
    """

    parts: tuple[str, ...]
    path: str
    shown: str
    is_folder: bool
    n_bytes: int


def read_tree(
    url: str,
    *,
    trial_people: str | Path | None = None,
    storage_options: Mapping[str, Any] | None = None,
    shown_as: str | None = None,
) -> PolicyTree:
    """Read a whole tree now; what is wrong in its files is in the tree's `problems`.

    Args:
        url: A folder, or a URL such as "s3://bucket/policies".
        trial_people: One further local file of people, who try things out; it may be absent.
        storage_options: Arguments for the fsspec file system; never shown.
        shown_as: What stands for `url` in paths for readers; `url` itself when None.

    Raises:
        PolicyError: If the folder does not exist or cannot be read.
    """
    problems: list[Problem] = []
    files: list[PolicyFile] = []
    people: list[Person] = []
    shown = (shown_as or url).rstrip("/")
    contents = _contents(url, storage_options or {}, shown, problems)
    compute, compute_problems = ComputeRules(), [p for p in problems if p.file == f"{shown}/{COMPUTE}"]
    problems = [p for p in problems if p not in compute_problems]
    for parts, file, content in contents:
        if parts == (PEOPLE,):
            document = _parsed(file, content, problems)
            people += [] if document is None else read_people(document, problems)
        elif parts == (COMPUTE,):
            document = _parsed(file, content, compute_problems)
            compute = compute if document is None else read_compute(document, compute_problems)
        else:
            found, wrong = _policy_file(parts, file, content)
            files += found
            problems += wrong
    people += _trial_people(trial_people, problems)
    domains = sorted(_place(parts)[1][0] for parts, _, _ in contents if parts[0] == "domains")
    problems += _unknown_domains(files, domains)
    by_name = told_apart(people, problems)
    return PolicyTree(
        files=tuple(files),
        people=by_name,
        problems=tuple(problems),
        compute=compute,
        compute_problems=tuple(compute_problems),
        n_files=len(contents),
    )


def read_compute_rules(
    url: str, *, storage_options: Mapping[str, Any] | None = None, shown_as: str | None = None
) -> ComputeRules:
    """Read the rules of compute alone, now; without their file there are none.

    Args:
        url: The policy folder, or a URL such as "s3://bucket/policies".
        storage_options: Arguments for the fsspec file system; never shown.
        shown_as: What stands for `url` in paths for readers; `url` itself when None.

    Raises:
        PolicyError: If the file cannot be read or is wrong; every problem is told at once.
    """
    problems: list[Problem] = []
    shown = f"{(shown_as or url).rstrip('/')}/{COMPUTE}"
    try:
        system, root = _open(url, storage_options or {})
        file = f"{root.rstrip('/')}/{COMPUTE}"
        content = _bytes_of(system, file) if system.exists(file) else None
    except (OSError, ImportError, ValueError) as error:
        raise PolicyError(f"The rules of compute in {shown} cannot be read: {error}") from error
    if content is None:
        return ComputeRules()
    document = _parsed(shown, content, problems)
    rules = ComputeRules() if document is None else read_compute(document, problems)
    if problems:
        raise all_at_once(problems)
    return rules


def _contents(
    url: str, options: Mapping[str, Any], shown: str, problems: list[Problem]
) -> list[tuple[tuple[str, ...], str, bytes]]:
    """Return (path below the root, path for readers, bytes) of each file that belongs to the tree."""
    try:
        system, root = _open(url, options)
        found = sorted(_walk(system, root, (), shown, problems), key=lambda file: file.parts)
        contents = [(file, _bytes_of(system, file.path)) for file in found if _is_wanted(file, problems)]
    except FileNotFoundError as error:
        raise PolicyError(
            f"The policy folder {shown} does not exist, or changed while it was read: {error}. "
            f"Expected a folder with {ORGANIZATION}; set ML_ASSETS_POLICIES to it."
        ) from error
    except (OSError, ImportError, ValueError) as error:
        raise PolicyError(f"The policy folder {shown} cannot be read: {error}") from error
    if (ORGANIZATION,) not in [file.parts for file, _ in contents]:
        problems.append(_without_organization(shown))
    return [(file.parts, file.shown, content) for file, content in contents]


@lru_cache(maxsize=4096)
def _policy_file(parts: tuple[str, ...], file: str, content: bytes) -> tuple[list[PolicyFile], list[Problem]]:
    """Return what one file says, if it is YAML, and what is wrong in it.

    Bytes that were parsed before are not parsed again: a hundred pipelines have a hundred files, and each decision
    about any of them reads them all. The caller changes neither list.
    """
    problems: list[Problem] = []
    document = _parsed(file, content, problems)
    return ([] if document is None else [read_policy_file(document, *_place(parts), problems)]), problems


def _open(url: str, options: Mapping[str, Any]) -> "tuple[AbstractFileSystem, str]":
    import fsspec

    system, root = fsspec.url_to_fs(url, **options)
    system.invalidate_cache()  # object stores remember listings
    if not system.isdir(root):
        raise FileNotFoundError(f"no folder at {url}")
    return system, root


def _walk(
    system: "AbstractFileSystem", folder: str, parts: tuple[str, ...], shown: str, problems: list[Problem]
) -> Iterator[_Found]:
    """Yield the files of a folder and of those folders below it that belong to the tree; tell the others."""
    for entry in system.ls(folder, detail=True):
        path = entry["name"].rstrip("/")
        name = path.rpartition("/")[2]
        if name.startswith(".") or path == folder.rstrip("/"):
            continue
        # A mounted volume may be made of links.
        is_folder = entry["type"] == "directory" or (entry["type"] != "file" and system.isdir(path))
        here = _Found(
            parts=(*parts, name), path=path, shown=f"{shown}/{name}", is_folder=is_folder, n_bytes=entry["size"] or 0
        )
        if not is_folder:
            yield here
        elif problem := _stray_folder(here):
            problems.append(problem)
        else:
            yield from _walk(system, path, here.parts, here.shown, problems)


def _stray_folder(folder: _Found) -> Problem | None:
    name, depth = folder.parts[-1], len(folder.parts)
    if depth == 1 and name not in FOLDERS:
        hint = wording.did_you_mean(name, FOLDERS) or "move it out of the policies, or begin its name with a dot"
        return _whole_file(folder.shown, "an unknown folder", "domains, teams or pipelines", hint)
    if depth == 1:
        return None
    if folder.parts[0] != "pipelines" or depth > 2:
        return _whole_file(folder.shown, "a folder", LAYOUT, "only pipelines/ has folders, one for each team")
    return _wrong_name(folder, name)


def _is_wanted(file: _Found, problems: list[Problem]) -> bool:
    """Whether a file is to be read; if it should not be there, that is told."""
    if not file.parts[-1].endswith(_FOR_READERS):
        problem = _stray_file(file)
        if problem is None:
            return True
        problems.append(problem)
    return False


def _stray_file(file: _Found) -> Problem | None:
    """Return why a file is not even opened, or None."""
    *folders, name = file.parts
    if name.endswith(".yml"):
        # Passing it over would leave its settings out without a word.
        hint = f"rename it to {file.shown.removesuffix('.yml')}.yaml"
        return _whole_file(file.shown, "the suffix .yml", "the suffix .yaml", hint)
    if not folders and name not in {ORGANIZATION, PEOPLE, COMPUTE}:
        hint = wording.did_you_mean(name, (ORGANIZATION, PEOPLE, COMPUTE))
        return _whole_file(file.shown, "an unknown file", LAYOUT, hint or _elsewhere(name))
    if not name.endswith(".yaml"):
        return _whole_file(file.shown, "an unknown file", LAYOUT, _elsewhere(name))
    if folders == ["pipelines"]:
        hint = f"move it to pipelines/<team>/{name}, or to teams/{name} if it is a team's"
        return _whole_file(file.shown, "a pipeline's file without a team", "pipelines/<team>/<pipeline>.yaml", hint)
    if file.n_bytes > MAX_BYTES:
        return _whole_file(file.shown, f"{file.n_bytes:,} bytes", f"at most {MAX_BYTES:,} bytes")
    return _wrong_name(file, name.removesuffix(".yaml"))


def _elsewhere(name: str) -> str:
    if name.endswith(".yaml"):
        return "a domain's file belongs in domains/, a team's in teams/, a pipeline's in pipelines/<team>/"
    return "move it out of the policies, or begin its name with a dot"


def _wrong_name(found: _Found, name: str) -> Problem | None:
    expected = name_problem(name, NAME_PATTERN)
    return _whole_file(found.shown, f"the name {wording.quoted(name)}", expected) if expected else None


def _whole_file(file: str, found: str, expected: str, hint: str = "") -> Problem:
    return Problem(file=file, line=0, field="", found=found, expected=expected, hint=hint)


def _without_organization(shown: str) -> Problem:
    hint = "an empty policy would leave every gate open; write at least `owner` and `settings: {}`"
    return _whole_file(f"{shown}/{ORGANIZATION}", "no such file", "the organization's policy", hint)


def _place(parts: tuple[str, ...]) -> tuple[Level, tuple[str, ...]]:
    """Return level and scope of a policy file."""
    if len(parts) == 1:
        return "organization", ()
    *folders, name = parts
    return FOLDERS[folders[0]], (*folders[1:], name.removesuffix(".yaml"))


def _bytes_of(system: "AbstractFileSystem", path: str) -> bytes:
    content = system.cat_file(path)
    return content.encode() if isinstance(content, str) else content


def _parsed(file: str, content: bytes, problems: list[Problem]) -> PositionedYaml | None:
    try:
        return load_yaml(content.decode(), file=file)
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        found = f"the byte 0x{content[error.start]:02x}, which is not UTF-8"
        problems.append(Problem(file=file, line=line, field="", found=found, expected="text in UTF-8"))
    except SpecError as error:
        problems.extend(error.problems)
    return None


def _trial_people(file: str | Path | None, problems: list[Problem]) -> list[Person]:
    if file is None or not Path(file).exists():
        return []
    try:
        if (n_bytes := Path(file).stat().st_size) > MAX_BYTES:
            problems.append(_whole_file(str(file), f"{n_bytes:,} bytes", f"at most {MAX_BYTES:,} bytes"))
            return []
        document = _parsed(str(file), Path(file).read_bytes(), problems)
    except OSError as error:
        raise PolicyError(f"The people of {file} cannot be read: {error}") from error
    return [] if document is None else read_people(document, problems, trial=True)


def _unknown_domains(files: list[PolicyFile], known: list[str]) -> Iterator[Problem]:
    """Yield each team whose domain has no file: what the domain locks would not hold for it."""
    for file in files:
        if file.domain is not None and file.domain not in known:
            hint = wording.did_you_mean(file.domain, known) or f"add domains/{file.domain}.yaml, or remove the line"
            yield Problem(
                file=file.file,
                line=file.domain_line,
                field="domain",
                found=f"the domain {wording.quoted(file.domain)} without a file",
                expected=wording.one_of(known, hint) if known else "a file of domains/",
                hint=hint,
            )
