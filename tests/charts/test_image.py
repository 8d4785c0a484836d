"""The image's recipe: what a review of it would look for, and locks that agree with those that are tested."""

import fnmatch
import re
import tomllib
from pathlib import Path

import pytest

from tests.charts.rendering import FOLDER, ROOT, of, rendered

DOCKERFILE = (FOLDER / "Dockerfile").read_text(encoding="utf-8")
IGNORED = (FOLDER / "Dockerfile.dockerignore").read_text(encoding="utf-8")


def instructions(text: str = DOCKERFILE) -> list[tuple[str, str]]:
    """Return (instruction, arguments) of each line of a Dockerfile, continued lines joined."""
    lines = re.sub(r"^\s*#.*\n", "", text, flags=re.MULTILINE).replace("\\\n", " ").splitlines()
    return [(word, " ".join(rest.split())) for word, _, rest in (line.partition(" ") for line in lines if line.strip())]


def last_stage() -> list[tuple[str, str]]:
    found = instructions()
    return found[max(index for index, (word, _) in enumerate(found) if word == "FROM") :]


def lock(path: Path) -> dict[str, str]:
    """Return the version of each package of a lock file."""
    return dict(re.findall(r"^([A-Za-z0-9._-]+)(?:\[[^\]]*\])?==([^ \\]+)", path.read_text(), flags=re.MULTILINE))


def test_the_base_is_pinned_and_can_be_pinned_by_digest() -> None:
    [(_, base)] = [one for one in instructions() if one[0] == "ARG"]

    assert re.fullmatch(r"BASE=python:3\.11\.\d+-slim-\w+", base)
    assert [image for word, image in instructions() if word == "FROM"] == ["${BASE} AS build", "${BASE}"]


def test_it_runs_as_a_numbered_user_who_is_not_root_and_owns_nothing() -> None:
    users = [user for word, user in last_stage() if word == "USER"]

    assert users == ["10001:10001"]
    assert last_stage()[-3:] == [("USER", "10001:10001"), ("EXPOSE", "3000 3030"), ("CMD", '["ml-assets", "--help"]')]
    assert "--chown" not in DOCKERFILE
    ids = {str(spec["template"]["spec"]["securityContext"]["runAsUser"]) for spec in _deployments()}
    assert ids == {users[0].partition(":")[0]}


def _deployments() -> list[dict]:
    return [one["spec"] for one in of(rendered(), "Deployment")]


def test_nothing_is_fetched_but_locked_packages() -> None:
    runs = [command for word, command in instructions() if word == "RUN"]
    installs = [part for run in runs for part in run.split("&&") if "pip install" in part]

    assert installs
    for install in installs:
        assert "--require-hashes" in install or ("--no-deps" in install and "--no-index" in install), install
    assert not re.search(r"\b(curl|wget|git|apt-get|apk|sudo|ADD)\b", DOCKERFILE)
    assert not re.search(r"https?://|index-url|trusted-host", DOCKERFILE)


def test_no_secret_stays_in_a_layer() -> None:
    kept = [words for word, words in instructions() if word in {"ENV", "ARG", "COPY"}]

    assert not [w for w in kept if re.search(r"(?i)secret|token|password|\.env\b|\.pem\b|\.key\b|pip\.conf|\.netrc", w)]
    assert all(
        "--mount=type=secret" in command for word, command in instructions() if word == "RUN" and "hashes" in command
    )


def test_code_comes_after_what_changes_less_often() -> None:
    order = [words for word, words in instructions() if word == "COPY"]

    def place(part: str) -> int:
        return next(index for index, words in enumerate(order) if part in words.split())

    assert place("deployments/kubernetes/requirements.lock") < place("ml_assets")
    assert place("policies") < place("resources") < place("deployments")


def test_the_wheel_holds_the_library_and_the_adapters_travel_beside_the_workspace() -> None:
    copied = {words.split()[0] for word, words in last_stage() if word == "COPY" and not words.startswith("--from")}

    assert {"resources", "sensors", "deployments", "policies", "pyproject.toml"} <= copied
    assert "ml_assets" not in copied


def test_everything_is_compiled_and_nothing_forbids_bytecode() -> None:
    assert DOCKERFILE.count("compileall") == 2
    assert "PYTHONDONTWRITEBYTECODE" not in DOCKERFILE


def test_what_is_copied_exists_and_is_not_ignored() -> None:
    copied = [
        source
        for word, words in instructions()
        if word == "COPY" and not words.startswith("--from")
        for source in words.split()[:-1]
    ]
    rules = [line for line in IGNORED.splitlines() if line and not line.startswith("#")]

    for source in copied:
        assert (ROOT / source).exists(), source
        assert not ignored(source, rules), source


@pytest.mark.parametrize(
    "path",
    [
        ".git",
        ".env",
        "state",
        "tests",
        "deployments/flights/.env",
        "deployments/kubernetes/values.yaml",
        "docs",
        "x.pem",
    ],
)
def test_what_may_hold_secrets_or_is_not_needed_stays_out(path: str) -> None:
    assert ignored(path, [line for line in IGNORED.splitlines() if line and not line.startswith("#")])


def ignored(path: str, rules: list[str]) -> bool:
    """Return whether a path is left out: the last rule that fits it or a folder above it decides."""
    parts = path.split("/")
    above = ["/".join(parts[: n + 1]) for n in range(len(parts))]
    found = False
    for rule in rules:
        pattern = rule.lstrip("!")
        names = [pattern, pattern.removeprefix("**/")] if pattern.startswith("**/") else [pattern]
        if any(fnmatch.fnmatch(place, name) for place in above for name in names):
            found = not rule.startswith("!")
    return found


def test_the_image_has_the_versions_that_are_tested() -> None:
    tested, deployed = lock(ROOT / "requirements.lock"), lock(FOLDER / "requirements.lock")

    assert len(deployed) > 100
    assert {n: (v, tested[n]) for n, v in deployed.items() if tested.get(n, v) != v} == {}
    assert {"dagster-postgres", "dagster-k8s", "s3fs", "psycopg2-binary", "xgboost", "lightgbm"} <= set(deployed)
    assert not {"pytest", "ruff", "pyright", "hypothesis"} & set(deployed)
    for name in ("requirements.lock", "build.lock"):
        text = (FOLDER / name).read_text(encoding="utf-8")
        assert "--hash=sha256:" in text
        assert not re.search(r"https?://|index-url", text)


def test_the_image_has_what_the_project_declares() -> None:
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = declared["optional-dependencies"]
    deployed = set(lock(FOLDER / "requirements.lock"))
    wanted = [
        *declared["dependencies"],
        *(line for e in ("postgres", "kubernetes", "s3", "lightgbm", "xgboost") for line in extras[e]),
    ]

    missing = {re.split(r"[<>=\[; ]", line)[0].lower().replace("_", "-") for line in wanted} - deployed
    assert missing == set()


def test_a_library_that_a_wheel_lacks_comes_from_another_locked_one() -> None:
    """LightGBM loads `libgomp.so.1`, which a slim base has not; the build fails when it does not load."""
    [link] = [command for word, command in last_stage() if word == "RUN" and "ln -s" in command]

    assert "/scikit_learn.libs/libgomp-*.so.* /usr/lib/libgomp.so.1" in link
    assert 'python -c "import lightgbm' in link
    assert {"lightgbm", "scikit-learn"} <= set(lock(FOLDER / "requirements.lock"))
    [base] = [words for word, words in instructions() if word == "ARG"]
    [version] = re.findall(r"python:(3\.\d+)", base)
    assert f"/venv/lib/python{version}/" in link


def test_the_daemon_that_the_official_chart_starts_is_ours() -> None:
    script = FOLDER / "bin" / "dagster-daemon"

    assert script.stat().st_mode & 0o111
    assert "exec python -m resources.daemon" in script.read_text(encoding="utf-8")
    [path] = [words for word, words in last_stage() if word == "ENV"]
    assert path.startswith("PATH=/app/bin:/venv/bin:")
    assert ("COPY", "deployments/kubernetes/bin bin") in last_stage()


def test_the_charts_version_of_dagster_is_the_locked_one() -> None:
    import yaml

    chart = yaml.safe_load((FOLDER / "chart" / "Chart.yaml").read_text(encoding="utf-8"))

    assert chart["appVersion"] == lock(FOLDER / "requirements.lock")["dagster"]
    [dagster] = chart["dependencies"]
    assert (dagster["name"], dagster["version"]) == ("dagster", chart["appVersion"])
    assert dagster["condition"] == "dagster.enabled"
