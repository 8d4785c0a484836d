"""`ml-assets compute` and what `ml-assets validate` says of profiles, in a project of its own."""

import shutil
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from ml_assets.cli import tables
from ml_assets.cli.main import cli

BASE = Path(__file__).parent.parent / "golden" / "spec_errors" / "base"
PROFILE = """
from pathlib import Path
from types import SimpleNamespace

from ml_assets.interfaces import Machine
from resources.policy_files import PolicyFiles


class Profile:
    policy_url = str(Path(__file__).parent / "policies")
    cores, memory_mib = 2, None
    cluster = None
    gpus = 0

    def activate(self):
        pass

    def services(self):
        return SimpleNamespace(policy=PolicyFiles(self.policy_url), machine=Machine(gpus=self.gpus))
"""
COMPUTE = """currency: USD
profiles:
  cpu-small: {price_per_hour: 0.04}
  gpu-small: {cores: 4, memory_gib: 16, gpus: 1, gpu_type: nvidia-t4, price_per_hour: 0.60, node_selector: {pool: gpu},
              time_limit: 90min, retry_memory_gib: [32], on_spot: {price_per_hour: 0.2}}
teams:
  shop: {profiles: [cpu-small, gpu-small]}
  other: {profiles: [cpu-small]}
"""
ORGANIZATION = """owner: ml-platform
effective_from: 2013-01-01
settings:
  roc_auc.floor: {value: 0.55, reason: Better than chance.}
  roc_auc.margin: {value: 0.02, reason: Some.}
  log_loss.beats_baseline: {value: 0, reason: Better than the prior.}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    files = {
        "pyproject.toml": '[tool.ml_assets]\nprofile = "compute_cli_profile:Profile"\n',
        "workspace.yaml": "load_from:\n- python_module: {location_name: shop, module_name: teams.shop.definitions}\n",
        "compute_cli_profile.py": PROFILE,
        "policies/organization.yaml": ORGANIZATION,
        "policies/compute.yaml": COMPUTE,
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    shutil.copytree(BASE, tmp_path / "teams/shop/defs/returns")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "compute_cli_profile", raising=False)
    monkeypatch.setattr(tables, "UNBOUND_WIDTH", 300)  # a row is a line
    return tmp_path


def run(*arguments: str) -> Result:
    return CliRunner().invoke(cli, list(arguments))


def words(result: Result) -> str:
    """Return what was printed with every run of spaces as one."""
    return " ".join(result.output.split())


def give(project: Path, compute: str) -> None:
    file = project / "teams/shop/defs/returns/defs.yaml"
    text = file.read_text(encoding="utf-8")
    after = "      params: {C: 0.5}\n"
    file.write_text(text.replace(after, f"{after}      compute: {compute}\n"), encoding="utf-8")


def set_profile(project: Path, line: str, other: str) -> None:
    file = project / "compute_cli_profile.py"
    file.write_text(PROFILE.replace(line, other), encoding="utf-8")


def test_list_shows_what_profiles_give_cost_and_who_may_use_them(project: Path) -> None:
    result = run("compute", "list")

    assert result.exit_code == 0, result.output
    assert "USD/h" in result.output
    assert "cpu-small 1 2 – 0.04 every team" in words(result)
    assert "gpu-small 4 16 1 nvidia-t4 0.60 at most 90min; up to 32 GiB; 0.20/h on spot shop" in words(result)


def test_list_of_a_team_has_only_its_profiles(project: Path) -> None:
    (project / "policies/compute.yaml").write_text(COMPUTE.replace("[cpu-small, gpu-small]", "[cpu-small]"))

    result = run("compute", "list", "--team", "shop")

    assert "cpu-small" in result.output
    assert "gpu-small" not in result.output
    assert run("compute", "list", "--team", "shp").exit_code == 2


def test_list_without_the_file_says_where_profiles_would_stand(project: Path) -> None:
    (project / "policies/compute.yaml").unlink()

    result = run("compute", "list")

    assert "There are no compute profiles; they stand in" in result.output
    assert "compute.yaml, which is not there." in result.output


def test_explain_says_what_steps_get_where_and_why(project: Path) -> None:
    give(project, "{profile: gpu-small, cores: 3}")

    result = run("compute", "explain", "shop/returns")

    assert result.exit_code == 0, result.output
    found = words(result)
    assert "shop/returns: 2 cores and 0 GPUs here" in found
    gets = "3 cores, 16 GiB, 1 GPU (nvidia-t4), at most 90min"
    assert f"models/logistic gpu-small {gets} here, on the CPU 0.60" in found
    assert "names the profile of" in found
    why = "scikit-learn uses no GPU; asks for 1 GPU, which is more than there are"
    assert f"policies/compute.yaml:4, with cores of its own; {why}" in found
    assert "models/forest – 1 core, 2 GiB here – the default" in found
    assert "each other step – 1 core, 2 GiB here – the default" in found


@pytest.mark.parametrize(
    ("number", "compute", "place"),
    [
        (0, "gpu-small", "here, on the CPU"),
        (1, "gpu-small", "here, on 1 GPU"),
        (0, "{profile: gpu-small, cpu_fallback: false}", "nowhere: refused"),
    ],
)
def test_explain_knows_where_a_gpu_step_would_run(project: Path, number: int, compute: str, place: str) -> None:
    set_profile(project, "gpus = 0", f"gpus = {number}")
    give(project, compute)

    result = run("compute", "explain", "shop/returns")

    (row,) = [line for line in result.output.splitlines() if "models/logistic" in line]
    assert f"  {place}  " in row


def test_explain_says_that_trials_at_once_share_the_gpu(project: Path) -> None:
    search = "\n      search: {trials: 4, parallel: 3, space: {estimator.C: {float: [0.1, 1.0]}}}"
    give(project, f"gpu-small{search}")
    file = project / "teams/shop/defs/returns/defs.yaml"
    text = file.read_text(encoding="utf-8")
    boosted = text.replace("sklearn.linear_model.LogisticRegression", "lightgbm.LGBMClassifier")
    boosted = boosted.replace("params: {C: 0.5}", "params: {}").replace("estimator.C", "estimator.learning_rate")
    file.write_text(boosted, encoding="utf-8")

    result = run("compute", "explain", "shop/returns")

    assert result.exit_code == 0, result.output
    assert "its 3 trials at once share 1 GPU and its memory" in words(result)


def test_explain_knows_which_steps_get_a_pod(project: Path) -> None:
    set_profile(project, "cluster = None", "cluster = object()")
    give(project, "gpu-small")

    result = run("compute", "explain", "shop/returns")

    assert "2 cores and 0 GPUs here, and a cluster for what does not fit" in result.output
    rows = {line.split()[0]: line for line in result.output.splitlines() if line.strip()}
    assert "  a pod of its own  " in rows["models/logistic"]
    assert rows["models/logistic"].rstrip().endswith("asks for 1 GPU")
    assert "  here  " in rows["models/forest"]


def test_validate_refuses_an_unknown_profile_at_its_line(project: Path) -> None:
    give(project, "gpu-smal")

    result = run("validate")

    text = (project / "teams/shop/defs/returns/defs.yaml").read_text(encoding="utf-8")
    line = 1 + text[: text.index("gpu-smal")].count("\n")
    assert result.exit_code == 1
    assert (
        f"defs.yaml:{line}: variants.logistic.compute.profile: there is no compute profile 'gpu-smal'" in result.output
    )
    assert "did you mean 'gpu-small'?" in result.output


def test_validate_tells_a_wrong_file_of_profiles(project: Path) -> None:
    give(project, "gpu-small")
    (project / "policies/compute.yaml").write_text("profiles: {gpu-small: {}}", encoding="utf-8")

    result = run("validate")

    assert result.exit_code == 1
    assert "profiles.gpu-small.price_per_hour: missing" in result.output
