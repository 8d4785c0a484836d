"""Runs that decide are tagged with their pipeline when they are queued, on a real Dagster instance."""

from typing import Any, cast

import dagster as dg
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.run_coordinator import SubmitRunContext
from dagster._core.test_utils import create_run_for_test

from resources.run_queue import DECIDES_TAG, decided


def test_stages_that_decide_name_their_pipeline_once() -> None:
    keys = [dg.AssetKey(["flights", "delay", stage]) for stage in ("row_index", "evaluation", "promotion")]

    assert decided(keys) == "flights/delay"
    assert decided(keys[:1]) == ""


def test_a_run_that_decides_is_queued_with_its_tag_and_another_without() -> None:
    overrides = {"run_coordinator": {"module": "resources.run_queue", "class": "PromptRunQueue"}}
    origin = RemoteJobOrigin(RemoteRepositoryOrigin(RegisteredCodeLocationOrigin("flights"), "repository"), "job")
    with dg.instance_for_test(overrides=overrides) as instance:
        for stage, expected in (("promotion", "flights/delay"), ("features", None)):
            selection = frozenset({dg.AssetKey(["flights", "delay", stage])})
            run = create_run_for_test(instance, job_name="job", asset_selection=selection, remote_job_origin=origin)
            instance.run_coordinator.submit_run(SubmitRunContext(run, cast("Any", None)))

            queued = instance.get_run_by_id(run.run_id)
            assert queued is not None
            assert queued.status == dg.DagsterRunStatus.QUEUED
            assert queued.tags.get(DECIDES_TAG) == expected
            assert {key: queued.tags[f"ml_assets/{key}"] for key in ("team", "gpus", "cores")} == {
                "team": "flights",
                "gpus": "0",
                "cores": "1",
            }
