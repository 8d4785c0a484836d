"""policies/compute.yaml: what is read, and what is told of a wrong one."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from ml_assets.errors import PolicyError
from ml_assets.interfaces import Ageing, ComputeRules, TeamShare
from ml_assets.policy.check import check_tree
from ml_assets.yaml_positions import MAX_BYTES
from resources.policy_files import PolicyFiles

ORGANIZATION = "owner: ml-platform\neffective_from: 2013-01-01\nsettings: {}\n"
WHOLE = """currency: USD
capacity: {gpus: 8, cores: 128}
profiles:
  cpu-small: {cores: 1, memory_gib: 2, price_per_hour: 0.04}
  gpu-small: {cores: 4, memory_gib: 16, gpus: 1, gpu_type: nvidia-t4, price_per_hour: 0.60, node_selector: {pool: gpu},
              tolerations: [{key: nvidia.com/gpu, operator: Exists, effect: NoSchedule}], priority: batch,
              time_limit: 4h, spot: false, retry_memory_gib: [32, 64]}
teams:
  flights: {weight: 2, reserve: {gpus: 2}, limit: {gpus: 6}, budget_per_month: 2000, over_budget: refuse,
            profiles: [cpu-small]}
ageing: {step: 5min, longest_wait: 2h}
"""


@pytest.fixture
def policies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    folder = Path("policies")
    folder.mkdir()
    (folder / "organization.yaml").write_text(ORGANIZATION, encoding="utf-8")
    return folder


def rules(policies: Path, text: str) -> ComputeRules:
    (policies / "compute.yaml").write_text(text, encoding="utf-8")
    return PolicyFiles(str(policies)).compute()


def told(policies: Path, text: str) -> str:
    with pytest.raises(PolicyError) as error:
        rules(policies, text)
    return str(error.value)


def test_everything_is_read(policies: Path) -> None:
    found = rules(policies, WHOLE)

    gpu = found.profiles["gpu-small"]
    assert (found.currency, found.capacity) == ("USD", {"gpus": 8, "cores": 128})
    assert (gpu.cores, gpu.memory_gib, gpu.gpus, gpu.price_per_hour) == (4, 16, 1, 0.6)
    assert gpu.tolerations == ({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},)
    assert (gpu.time_limit, gpu.retry_memory_gib, gpu.priority) == (timedelta(hours=4), (32, 64), "batch")
    assert (gpu.file, gpu.line) == ("policies/compute.yaml", 5)
    assert found.teams["flights"] == TeamShare(
        weight=2,
        reserve={"gpus": 2},
        limit={"gpus": 6},
        budget_per_month=2000,
        over_budget="refuse",
        profiles=("cpu-small",),
    )
    assert found.ageing == Ageing(step=timedelta(minutes=5), longest_wait=timedelta(hours=2))


def test_a_team_may_use_what_its_entry_names_and_others_may_use_all(policies: Path) -> None:
    found = rules(policies, WHOLE)

    assert set(found.profiles_of("flights")) == {"cpu-small"}
    assert set(found.profiles_of("births")) == {"cpu-small", "gpu-small"}
    assert found.team("births") == TeamShare()


def test_without_the_file_there_are_no_profiles_and_no_limits(policies: Path) -> None:
    assert PolicyFiles(str(policies)).compute() == ComputeRules()


def test_a_folder_that_is_not_there_is_told(policies: Path) -> None:
    with pytest.raises(PolicyError, match=r"rules of compute in elsewhere/compute\.yaml cannot be read"):
        PolicyFiles("elsewhere").compute()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "profiles: {gpu: {price_per_hour: 1, gpus: 0.5}}",
            "policies/compute.yaml:1: profiles.gpu.gpus: 0.5 (number); expected a whole number from 0 to 64",
        ),
        ("profiles: {gpu: {}}", "profiles.gpu.price_per_hour: missing; expected a number from 0 to 1,000,000"),
        ("profiles: {gpu: {price_per_hour: 1, core: 2}}", "profiles.gpu.core: unknown field"),
        ("profiles: {Gpu_Small: {price_per_hour: 1}}", "profiles.Gpu_Small: the name 'Gpu_Small'; expected a name of"),
        (
            "profiles: {gpu: {price_per_hour: 1, gpus: 1, gpu_type: nvidia-t4}}",
            "profiles.gpu.gpu_type: nvidia-t4 without node_selector; expected a label of its nodes",
        ),
        (
            "profiles: {gpu: {price_per_hour: 1, gpu_type: nvidia-t4}}",
            "profiles.gpu.gpu_type: nvidia-t4 without GPUs; expected gpus of at least 1 beside it",
        ),
        (
            "profiles: {big: {price_per_hour: 1, memory_gib: 16, retry_memory_gib: [32, 8]}}",
            "profiles.big.retry_memory_gib: 32, 8; expected sizes that rise from above memory_gib (16)",
        ),
        (
            "profiles: {big: {price_per_hour: 1, node_selector: {pool: a}, on_spot: {node_selector: {pool: b}}}}",
            "profiles.big.on_spot.node_selector.pool: b; expected another label than the profile's pool: a",
        ),
        (
            "profiles: {big: {price_per_hour: 1, tolerations: [{value: x}]}}",
            "profiles.big.tolerations[0]: has the fields value; expected a key, or operator Exists for all taints",
        ),
        (
            "profiles: {gpu-small: {price_per_hour: 1}}\nteams: {flights: {profiles: [gpu-smal]}}",
            "policies/compute.yaml:2: teams.flights.profiles[0]: there is no profile 'gpu-smal'",
        ),
        (
            "teams: {flights: {reserve: {gpus: 4}, limit: {gpus: 2}}}",
            "teams.flights.reserve.gpus: 4; expected at most the team's limit of 2",
        ),
        (
            "capacity: {gpus: 4}\nteams: {flights: {limit: {gpus: 6}}}",
            "teams.flights.limit.gpus: 6; expected at most the capacity of 4",
        ),
        (
            "capacity: {gpus: 4}\nteams: {a: {reserve: {gpus: 3}}, b: {reserve: {gpus: 2}}}",
            "capacity.gpus: 4, with reserves of 5 together; expected at least what is reserved",
        ),
        (
            "capacity: {gpus: 8}\nteams:\n  flights: {reserve: {gpus: 2, cores: 8}}",
            "policies/compute.yaml:3: teams.flights.reserve.cores: 8 of cores, which have no capacity; expected "
            "capacity.cores, or no such reserve",
        ),
        ("teams: {flights: {over_budget: stop}}", "expected one of wait, refuse"),
        ("ageing: {step: soon}", "ageing.step: 'soon' (text); expected a whole number and a unit"),
        ("currency: euro", "currency: 'euro' (text); expected a currency's ISO 4217 code such as EUR"),
    ],
)
def test_what_is_wrong_is_told_with_its_line(policies: Path, text: str, expected: str) -> None:
    assert expected in told(policies, text)


def test_a_broken_capacity_is_told_without_the_reserves_of_it(policies: Path) -> None:
    message = told(policies, "capacity: {gpus: many}\nteams: {flights: {reserve: {gpus: 2}}}")

    assert message.count("expected") == 1
    assert "capacity.gpus: 'many' (text)" in message


def test_a_reserve_of_nothing_needs_no_capacity(policies: Path) -> None:
    assert rules(policies, "teams: {flights: {reserve: {gpus: 0}}}").teams["flights"].reserve == {"gpus": 0}


def test_ageing_without_time_is_refused_before_the_queue_divides_by_it(policies: Path) -> None:
    found = told(policies, "teams: {flights: {}}\nageing: {step: 0min}\n")

    assert "compute.yaml:2" in found
    assert "a time above 0, such as 10min" in found


def test_a_near_name_is_offered(policies: Path) -> None:
    message = told(policies, "profiles: {gpu-small: {price_per_hour: 1}}\nteams: {flights: {profiles: [gpu-smal]}}")

    assert "did you mean 'gpu-small'?" in message


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("profiles: {gpu: {price_per_hour: cheap}}", "profiles.gpu.price_per_hour"),
        ("profiles:\n  : [", ""),
        (f"owner: {'x' * MAX_BYTES}", ""),
    ],
    ids=["wrong value", "no YAML", "too large"],
)
def test_a_wrong_file_is_found_by_the_check_and_stops_no_decision(policies: Path, text: str, field: str) -> None:
    (policies / "compute.yaml").write_text(text, encoding="utf-8")
    source = PolicyFiles(str(policies))

    assert source.effective(("flights", "arrival_delay")).pipeline == ("flights", "arrival_delay")
    found = check_tree(source.tree(), datetime(2026, 1, 1, tzinfo=UTC))
    assert [(problem.file, problem.field) for problem in found.problems] == [("policies/compute.yaml", field)]


def test_the_projects_own_file_is_right() -> None:
    found = PolicyFiles(str(Path(__file__).parents[2] / "policies")).compute()

    assert {"cpu-small", "gpu-small"} <= set(found.profiles)
