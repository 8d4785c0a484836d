"""Profiles that a pipeline names: looked up, held to their limits, and wrong ones told with their line."""

import shutil
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from ml_assets.errors import PolicyError, SpecError
from ml_assets.interfaces import ComputeProfile, ComputeRules, TeamShare
from ml_assets.reading.pipeline_file import LoadedPipeline, check_pipeline, read_pipeline, with_compute

BASE = Path(__file__).parent.parent / "golden" / "spec_errors" / "base"
VARIANT = "      params: {C: 0.5}\n"
RULES = ComputeRules(
    currency="USD",
    profiles={
        profile.name: profile
        for profile in (
            ComputeProfile(name="cpu-small", price_per_hour=0.04),
            ComputeProfile(
                name="gpu-small",
                cores=4,
                memory_gib=16,
                gpus=1,
                gpu_type="nvidia-t4",
                price_per_hour=0.6,
                node_selector={"pool": "gpu"},
                tolerations=({"key": "gpu", "operator": "Exists"},),
                priority="batch",
                time_limit=timedelta(hours=4),
                retry_memory_gib=(32.0,),
                file="policies/compute.yaml",
                line=5,
            ),
            ComputeProfile(name="gpu-large", gpus=8, price_per_hour=9.0, spot=True),
        )
    },
    teams={"shop": TeamShare(profiles=("cpu-small", "gpu-small"))},
    file="policies/compute.yaml",
)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(BASE, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def read(folder: Path, compute: str, rules: Callable[[], ComputeRules] | None = None) -> LoadedPipeline:
    """Return the base pipeline whose first variant has this `compute`."""
    file = Path("defs.yaml")
    text = file.read_text(encoding="utf-8")
    assert text.count(VARIANT) == 1
    file.write_text(text.replace(VARIANT, f"{VARIANT}      compute: {compute}\n"), encoding="utf-8")
    return read_pipeline(file, rules)


def told(folder: Path, compute: str) -> str:
    with pytest.raises(SpecError) as error:
        read(folder, compute, lambda: RULES)
    return str(error.value)


@pytest.mark.parametrize("compute", ["gpu-small", "{profile: gpu-small}"])
def test_a_name_and_a_mapping_mean_the_same(folder: Path, compute: str) -> None:
    found = with_compute(read(folder, compute), RULES).compute["logistic"]

    assert (found.profile, found.cores, found.gpus, found.price_per_hour) == ("gpu-small", 4, 1, 0.6)
    assert found.currency == "USD"


def test_overrides_within_the_limits_count(folder: Path) -> None:
    compute = "{profile: gpu-small, time_limit: 2h, spot: true, memory_gib: 32, node_selector: {zone: a}}"

    found = with_compute(read(folder, compute), RULES).compute["logistic"]

    assert (found.time_limit, found.spot, found.memory_gib) == (timedelta(hours=2), True, 32)
    assert found.node_selector == {"pool": "gpu", "zone": "a"}


@pytest.mark.parametrize(
    ("compute", "expected"),
    [
        ("gpu-smal", "there is no compute profile 'gpu-smal'; expected one of cpu-small, gpu-small"),
        ("gpu-large", "the compute profile 'gpu-large', which team shop may not use; expected one of cpu-small"),
        ("{profile: gpu-small, cores: 8}", "cores: 8; expected at most 4, the profile gpu-small's"),
        ("{profile: gpu-small, memory_gib: 33}", "memory_gib: 33; expected at most 32"),
        ("{profile: gpu-small, gpus: 2}", "gpus: 2; expected at most 1"),
        ("{profile: gpu-small, time_limit: 1d}", "time_limit: 1d; expected at most 4h, the"),
        ("{profile: gpu-small, gpu_type: nvidia-a100}", "gpu_type: 'nvidia-a100'; expected 'nvidia-t4'"),
        ("{profile: cpu-small, priority: urgent}", "priority: 'urgent'; expected none, the profile cpu-small's"),
        ("{profile: gpu-small, node_selector: {pool: cpu}}", "expected pool: gpu, the profile gpu-small's"),
        ("{profile: gpu-small, tolerations: [{key: system}]}", "the taint system; expected only taints that are"),
        ("{gpus: 1}", "gpus: 1 without a profile; expected a profile that has some: gpu-small"),
    ],
)
def test_more_than_policy_gives_is_refused_at_its_line(folder: Path, compute: str, expected: str) -> None:
    message = told(folder, compute)

    line = next(
        number
        for number, text in enumerate(Path("defs.yaml").read_text(encoding="utf-8").splitlines(), start=1)
        if "compute:" in text
    )
    assert expected in message
    assert f"defs.yaml:{line}: variants.logistic.compute." in message


SEARCH = "\n      search: {trials: 4, parallel: 3, space: {estimator.C: {float: [0.1, 1.0]}}}"


def test_a_search_has_no_more_trials_at_once_than_the_profile_has_cores(folder: Path) -> None:
    message = told(folder, f"cpu-small{SEARCH}")

    assert "variants.logistic.search.parallel: 3 trials at once on 1 core; expected at most" in message
    shutil.copytree(BASE, folder, dirs_exist_ok=True)
    assert with_compute(read(folder, f"gpu-small{SEARCH}"), RULES).compute["logistic"].cores == 4


def test_a_search_on_an_unknown_profile_is_one_problem(folder: Path) -> None:
    assert told(folder, f"gpu-smal{SEARCH}").startswith("1 problem")


def test_a_near_name_is_offered_and_the_place_of_the_profiles_told(folder: Path) -> None:
    assert "did you mean 'gpu-small'?" in told(folder, "gpu-smal")


def test_the_place_of_the_profiles_is_told_for_a_name_like_none(folder: Path) -> None:
    assert "who may use them, stand in policies/compute.yaml" in told(folder, "something-else")


def test_without_profiles_a_name_is_refused_and_gpus_are_free(folder: Path) -> None:
    with pytest.raises(SpecError, match="expected no profile: there is none for this team"):
        with_compute(read(folder, "gpu-small"), ComputeRules())
    shutil.copytree(BASE, folder, dirs_exist_ok=True)

    assert with_compute(read(folder, "{gpus: 2}"), ComputeRules()).compute["logistic"].gpus == 2


def test_a_profile_on_spot_cannot_be_taken_off_it(folder: Path) -> None:
    rules = ComputeRules(profiles=RULES.profiles)

    with pytest.raises(SpecError, match="spot: false; expected true, the profile gpu-large's"):
        with_compute(read(folder, "{profile: gpu-large, spot: false}"), rules)


def test_rules_are_read_only_for_a_pipeline_that_needs_them(folder: Path) -> None:
    def broken() -> ComputeRules:
        raise PolicyError("policies/compute.yaml is wrong")

    assert read(folder, "{cores: 2}", broken).compute["logistic"].cores == 2
    shutil.copytree(BASE, folder, dirs_exist_ok=True)
    with pytest.raises(PolicyError):
        read(folder, "gpu-small", broken)


def test_a_pipeline_made_in_python_gets_its_profiles_too(folder: Path) -> None:
    spec = read(folder, "gpu-small").spec

    assert check_pipeline(spec, folder, rules=lambda: RULES).compute["logistic"].gpus == 1


def test_what_was_read_without_rules_is_looked_up_later_with_the_same_words(folder: Path) -> None:
    with pytest.raises(SpecError, match="there is no compute profile 'gpu-smal'"):
        with_compute(read(folder, "gpu-smal"), RULES)


def break_elsewhere(folder: Path) -> None:
    """Give the second variant an estimator that there is not, and `partitions` a word of no period."""
    file = folder / "defs.yaml"
    text = file.read_text(encoding="utf-8")
    changed = text.replace("RandomForestClassifier", "RandomForrestClassifier").replace(
        "every: month", "every: fortnight"
    )
    assert changed.count("RandomForrestClassifier") == 1
    assert changed.count("every: fortnight") == 1
    file.write_text(changed, encoding="utf-8")


def test_compute_is_told_in_one_round_with_what_else_is_wrong(folder: Path) -> None:
    break_elsewhere(folder)

    message = told(folder, "{profile: gpu-small, cores: 8}")

    assert "RandomForrestClassifier" in message
    assert "fortnight" in message
    assert "compute.cores: 8; expected at most 4" in message


def test_of_a_file_with_broken_parts_what_it_does_not_say_is_no_override(folder: Path) -> None:
    break_elsewhere(folder)
    small = ComputeProfile(name="cpu-small", memory_gib=0.5, price_per_hour=0.01)

    with pytest.raises(SpecError) as error:
        read(folder, "{profile: cpu-small}", lambda: ComputeRules(profiles={"cpu-small": small}))

    assert "compute" not in str(error.value)


def test_rules_that_cannot_be_read_hide_nothing_of_the_file(folder: Path) -> None:
    def broken() -> ComputeRules:
        raise PolicyError("policies/compute.yaml is wrong")

    break_elsewhere(folder)

    with pytest.raises(SpecError, match="RandomForrestClassifier"):
        read(folder, "gpu-small", broken)


@pytest.mark.parametrize(
    ("compute", "expected"),
    [
        ("{gpu_type: nvidia-t4}", "nvidia-t4 without GPUs; expected gpus of at least 1 beside it"),
        ("{profile: cpu-small, gpu_type: nvidia-t4}", "nvidia-t4 without GPUs; expected no type, or a number of GPUs"),
        ("{profile: gpu-small, gpus: 0, gpu_type: nvidia-t4}", "nvidia-t4 without GPUs; expected no type, or a number"),
    ],
)
def test_a_type_of_gpus_without_gpus_is_refused_at_its_line(folder: Path, compute: str, expected: str) -> None:
    message = told(folder, compute)

    assert message.startswith("1 problem")
    assert f"variants.logistic.compute.gpu_type: {expected}" in message


def test_a_type_of_gpus_without_gpus_needs_no_rules_to_be_refused(folder: Path) -> None:
    with pytest.raises(
        SpecError, match=r"defs\.yaml:\d+: variants\.logistic\.compute\.gpu_type: nvidia-t4 without GPUs"
    ):
        read(folder, "{gpu_type: nvidia-t4}")


@pytest.mark.parametrize(
    ("compute", "expected"),
    [
        ("[gpu]", "variants.logistic.compute: a list of 1 item; expected"),
        ("GPU_Small", "variants.logistic.compute: 'GPU_Small' (text); expected a name of lower-case letters, digits"),
        ("{gpus: 0.5}", "variants.logistic.compute.gpus: 0.5 (number); expected a whole number from 0 to 64"),
        ("{profil: gpu-small}", "variants.logistic.compute.profil: unknown field; expected one of"),
        ("{time_limit: long}", "variants.logistic.compute.time_limit: 'long' (text); expected a whole number and a"),
    ],
)
def test_a_wrong_form_is_told_as_everywhere(folder: Path, compute: str, expected: str) -> None:
    with pytest.raises(SpecError) as error:
        read(folder, compute)

    assert expected in str(error.value)
