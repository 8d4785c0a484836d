"""Every code location of the workspace loads, names only what it may, and keeps to its own assets."""

import itertools
from pathlib import Path

import dagster as dg
import pytest
import yaml

from tests.deployments.code_locations import ROOT, WORKSPACE, CodeLocation, code_locations

LOCATIONS = code_locations()


@pytest.fixture(params=LOCATIONS, ids=lambda location: location.name)
def location(request: pytest.FixtureRequest) -> CodeLocation:
    return request.param


def test_a_location_loads(location: CodeLocation) -> None:
    definitions = location.definitions()

    dg.Definitions.validate_loadable(definitions)
    assert not [key for key in location.asset_keys() if key.endswith("/broken")]


def test_a_location_holds_its_team_s_assets_alone(location: CodeLocation) -> None:
    assert {key.split("/")[0] for key in location.asset_keys()} == {location.name}


def test_a_location_binds_every_resource_its_assets_ask_for(location: CodeLocation) -> None:
    definitions = location.definitions()
    wanted = {key for asset in definitions.assets or [] for key in getattr(asset, "required_resource_keys", ())}

    assert wanted
    assert wanted - {"io_manager"} <= set(definitions.resources or {})


def test_a_location_has_the_job_with_which_people_decide(location: CodeLocation) -> None:
    job = location.definitions().resolve_job_def("decide")

    assert [node.name for node in job.nodes] == ["record_statement"]
    assert job.executor_def.name == "in_process"  # nothing in it is worth a process of its own
    assert {"ledger", "policy"} <= set(job.resource_defs)


def test_a_location_watches_the_promotions_of_all_its_pipelines(location: CodeLocation) -> None:
    definitions = location.definitions()
    sensor = definitions.resolve_sensor_def("approvals")

    repository = definitions.get_repository_def()
    jobs = [repository.get_job(target.job_name) for target in sensor.targets]
    watched = {key for job in jobs for key in job.asset_layer.selected_asset_keys}
    assert {key.to_user_string() for key in watched} == {
        key for key in location.asset_keys() if key.endswith("/promotion")
    }
    assert sensor.default_status == dg.DefaultSensorStatus.RUNNING
    assert sensor.minimum_interval_seconds == 5
    assert sensor.required_resource_keys == {"ledger", "policy"}


def test_asset_keys_of_locations_are_disjoint() -> None:
    for one, other in itertools.combinations(LOCATIONS, 2):
        assert not one.asset_keys() & other.asset_keys(), f"{one.name} and {other.name} share assets"


def test_the_workspace_names_python_modules_at_the_root_alone() -> None:
    entries = yaml.safe_load(WORKSPACE.read_text(encoding="utf-8"))["load_from"]

    for entry in entries:
        assert list(entry) == ["python_module"]
        module = entry["python_module"]
        assert module == {
            "module_name": f"deployments.{module['location_name']}.definitions",
            "location_name": module["location_name"],
            "working_directory": ".",
        }


def test_every_team_s_folder_is_in_the_workspace() -> None:
    teams = {file.parent.name for file in (ROOT / "deployments").glob("*/definitions.py")}

    assert {location.name for location in LOCATIONS} == teams
    assert {Path(*location.module.split(".")).parent.name for location in LOCATIONS} == teams
