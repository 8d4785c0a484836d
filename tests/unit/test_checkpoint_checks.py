"""`compute.checkpoint` beside a search: each choice with which a trial could not be saved on its way is told."""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ml_assets.errors import SpecError
from ml_assets.reading.pipeline_file import read_pipeline
from ml_assets.trainers.kinds import KINDS

BASE = Path(__file__).parent.parent / "golden" / "spec_errors" / "base"


def problems(folder: Path, estimator: str, params: str, space: str, checkpoint: str = "true") -> list[str]:
    """Return the problems of the base pipeline with one more variant, which searches this space."""
    shutil.copytree(BASE, folder, dirs_exist_ok=True)
    file = folder / "defs.yaml"
    variant = f"""    tried:
      estimator: {estimator}
      params: {params}
      compute: {{checkpoint: {checkpoint}}}
      search:
        trials: 4
        space:
{space}"""
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace("  variants:\n", f"  variants:\n{variant}"), encoding="utf-8")
    try:
        read_pipeline(file)
    except SpecError as error:
        return [f"{problem.field}: {problem.found}; {problem.expected}" for problem in error.problems]
    return []


def test_a_choice_without_rounds_is_told_where_it_stands(tmp_path: Path) -> None:
    space = "          estimator.solver: {choice: [adam, lbfgs, sgd]}\n"

    assert problems(tmp_path, "sklearn.neural_network.MLPClassifier", "{}", space) == [
        "variants.tried.search.space.estimator.solver.choice[1]: MLPClassifier cannot be trained in rounds with lbfgs: "
        "the solver lbfgs has no epochs; use adam or sgd; no such choice, or compute.checkpoint: false"
    ]
    assert problems(tmp_path, "sklearn.neural_network.MLPClassifier", "{}", space, checkpoint="false") == []


def test_what_is_searched_takes_the_place_of_the_variants_own_value(tmp_path: Path) -> None:
    space = "          estimator.solver: {choice: [adam, sgd]}\n"

    assert problems(tmp_path, "sklearn.neural_network.MLPClassifier", "{solver: lbfgs}", space) == []


def test_a_value_that_counts_only_beside_another_is_told(tmp_path: Path) -> None:
    space = (
        "          estimator.early_stopping: {choice: [false, true]}\n"
        "          estimator.scoring: {choice: [loss, accuracy]}\n"
    )

    (told,) = problems(tmp_path, "sklearn.ensemble.HistGradientBoostingClassifier", "{}", space)

    assert told.startswith("variants.tried.search.space.estimator.early_stopping.choice[1]: ")
    assert "with true: it stops early by a scorer" in told


def test_a_condition_that_keeps_two_choices_apart_is_seen(tmp_path: Path) -> None:
    space = (
        "          estimator.early_stopping: {choice: [false, true]}\n"
        "          estimator.scoring: {choice: [loss, accuracy], when: {estimator.early_stopping: [false]}}\n"
    )

    assert problems(tmp_path, "sklearn.ensemble.HistGradientBoostingClassifier", "{}", space) == []


def test_a_conditional_choice_leaves_the_variants_own_value_elsewhere(tmp_path: Path) -> None:
    space = (
        "          preprocessing.numeric: {choice: [keep, standardize]}\n"
        "          estimator.tol: {choice: [null], when: {preprocessing.numeric: [standardize]}}\n"
    )

    (told,) = problems(tmp_path, "sklearn.linear_model.SGDClassifier", "{loss: log_loss}", space)

    assert told.startswith("variants.tried.compute.checkpoint: SGDClassifier cannot be trained in rounds: partial_fit")
    assert problems(tmp_path, "sklearn.linear_model.SGDClassifier", "{loss: log_loss, tol: null}", space) == []


def test_a_range_that_rules_rounds_out_is_told(tmp_path: Path) -> None:
    space = "          estimator.n_iter_no_change: {int: [5, 50]}\n"

    (told,) = problems(tmp_path, "sklearn.ensemble.GradientBoostingClassifier", "{}", space)

    assert told.startswith("variants.tried.compute.checkpoint: GradientBoostingClassifier cannot be trained in rounds")


def test_a_range_that_rules_rounds_out_in_parts_is_told_where_it_stands(tmp_path: Path) -> None:
    space = "          estimator.early_stopping_round: {int: [0, 50]}\n"

    assert problems(tmp_path, "lightgbm.LGBMClassifier", "{}", space) == [
        "variants.tried.search.space.estimator.early_stopping_round.int: LGBMClassifier cannot be trained in rounds "
        "with 50: it has no held-out rows to stop early by; leave early_stopping_round out; a range without it, or "
        "compute.checkpoint: false"
    ]


def test_two_wrong_choices_are_told_once_each(tmp_path: Path) -> None:
    space = (
        "          estimator.solver: {choice: [adam, lbfgs]}\n"
        "          estimator.early_stopping: {choice: [false, true]}\n"
    )

    assert [
        told.split(": ")[0] for told in problems(tmp_path, "sklearn.neural_network.MLPClassifier", "{}", space)
    ] == [
        "variants.tried.search.space.estimator.solver.choice[1]",
        "variants.tried.search.space.estimator.early_stopping.choice[1]",
    ]


def test_a_broken_space_is_told_alone(tmp_path: Path) -> None:
    space = "          estimator.solver: {choice: [lbfgs, lbfgs]}\n"

    (told,) = problems(tmp_path, "sklearn.neural_network.MLPClassifier", "{}", space)

    assert "stands there twice" in told


class Watched(Mapping[str, Any]):
    """Parameters that remember which of them were looked at."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self.values_, self.seen = values, set[str]()

    def __getitem__(self, name: str) -> Any:
        self.seen.add(name)
        return self.values_[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.values_)

    def __len__(self) -> int:
        return len(self.values_)


@pytest.mark.parametrize("name", sorted(KINDS))
@pytest.mark.parametrize("stops", [True, False, None])
def test_rounds_are_decided_by_no_other_parameters_than_named(name: str, stops: bool | None) -> None:
    kind = KINDS[name]
    values = {"early_stopping": stops, "tol": None} if "tol" in kind.decided_by else {"early_stopping": stops}
    watched = Watched(values)

    kind.obstacle(watched)

    assert watched.seen <= kind.decided_by
