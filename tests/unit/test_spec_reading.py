"""Reading a pipeline's description: what it returns, where it looks, and that it never breaks."""

import copy
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from ml_assets.errors import Problem, SpecError
from ml_assets.reading.pipeline_file import check_pipeline, read_pipeline
from ml_assets.spec import PipelineSpec
from ml_assets.yaml_positions import load_yaml

ROOT = Path(__file__).parents[2]
BASE = ROOT / "tests" / "golden" / "spec_errors" / "base"
JARGON = (
    "Input should",
    "pydantic",
    "NoneType",
    "a dict",
    "str)",
    "tuple",
    "Traceback",
    "<class",
    "validation error",
)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the base pipeline."""
    shutil.copytree(BASE, tmp_path, dirs_exist_ok=True)
    return tmp_path


def attributes() -> dict[str, Any]:
    return load_yaml((BASE / "defs.yaml").read_text(), file="defs.yaml").data["attributes"]


def written(folder: Path, change: dict[str, Any]) -> Path:
    """Write the base with some attributes replaced; None drops one."""
    data = {key: value for key, value in (attributes() | change).items() if value is not None}
    file = folder / "defs.yaml"
    file.write_text(yaml.safe_dump({"type": "ml_assets.components.TrainingPipeline", "attributes": data}))
    return file


def problems(file: Path) -> list[tuple[str, str]]:
    with pytest.raises(SpecError) as error:
        read_pipeline(file)
    return [(problem.field, problem.found) for problem in error.value.problems]


def told(file: Path) -> tuple[Problem, ...]:
    """Return the problems of a file, none when it is fine; anything but SpecError fails the test."""
    try:
        read_pipeline(file)
    except SpecError as error:
        return error.problems
    return ()


def test_a_missing_file_is_told_with_a_similar_name(folder: Path) -> None:
    with pytest.raises(SpecError) as error:
        read_pipeline(folder / "def.yaml")

    assert f"{folder}/def.yaml: does not exist; expected a pipeline's YAML file" in str(error.value)
    assert "did you mean 'defs.yaml'?" in str(error.value)


def test_a_folder_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(SpecError, match="cannot be read: Is a directory"):
        read_pipeline(tmp_path)


def test_a_file_that_is_no_text_is_told(tmp_path: Path) -> None:
    file = tmp_path / "defs.yaml"
    file.write_bytes(b"type: \xff")

    with pytest.raises(SpecError, match=r"is not UTF-8 text \(byte 6\)"):
        read_pipeline(file)


@pytest.mark.parametrize("key", ["requirements", "post_processing"])
def test_keys_that_belong_to_dagster_are_left_alone(folder: Path, key: str) -> None:
    file = folder / "defs.yaml"
    file.write_text(f"{file.read_text()}{key}: {{env: [ANY]}}\n")

    assert read_pipeline(file).spec.name == "returns"


@pytest.mark.parametrize("component", [".component.MyPipeline", "shop.pipelines.MyPipeline", "..shared.Weekly"])
def test_a_subclass_may_be_named(folder: Path, component: str) -> None:
    file = folder / "defs.yaml"
    file.write_text(file.read_text().replace("ml_assets.components.TrainingPipeline", component))

    assert read_pipeline(file).component == component


def test_the_same_description_in_python_reads_the_same(folder: Path) -> None:
    from_yaml = read_pipeline(folder / "defs.yaml")

    from_python = check_pipeline(PipelineSpec.model_validate(attributes()), folder, file=folder / "pipeline.py")

    assert from_python.spec == from_yaml.spec
    assert from_python.raw_data_expectations == from_yaml.raw_data_expectations
    assert from_python.used_columns == from_yaml.used_columns
    assert from_python.file == folder / "pipeline.py"
    assert from_python.line(("label",)) == 0


def test_problems_of_a_description_in_python_name_its_file_without_a_line(folder: Path) -> None:
    spec = PipelineSpec.model_validate(attributes() | {"selection": {"metric": "auc"}})

    with pytest.raises(SpecError) as error:
        check_pipeline(spec, folder, file=Path("pipeline.py"))

    assert [(p.file, p.line, p.field) for p in error.value.problems] == [("pipeline.py", 0, "selection.metric")]
    assert "pipeline.py: selection.metric: there is no metric 'auc'" in str(error.value)


def test_without_a_file_the_folder_is_named(folder: Path) -> None:
    spec = PipelineSpec.model_validate(attributes() | {"selection": {"metric": "auc"}})

    with pytest.raises(SpecError) as error:
        check_pipeline(spec, folder)

    assert error.value.problems[0].file == str(folder)


def test_a_broken_part_does_not_hide_the_others(folder: Path) -> None:
    change = {
        "source": None,
        "evaluation": {"metrics": ["auc", 3]},
        "variants": {"a": {"estimator": "sklearn.linear_model.Logistic", "compute": {"cores": 0}}, "b": 4},
    }

    assert problems(written(folder, change)) == [
        ("source", "missing"),
        ("evaluation.metrics[0]", "there is no metric 'auc'"),
        ("evaluation.metrics[1]", "3 (whole number)"),
        ("variants.a.compute.cores", "0 (whole number)"),
        ("variants.a.estimator", "there is no class 'sklearn.linear_model.Logistic'"),
        ("variants.b", "4 (whole number)"),
    ]


@pytest.mark.parametrize(("when", "is_told"), [({}, False), ({"estimator.voting": ["hard"]}, True)])
def test_a_needed_parameter_may_stand_in_the_space_alone(folder: Path, when: dict[str, Any], is_told: bool) -> None:
    searched = {"choice": [["a"], ["b"]], "when": when}
    space = {"estimator.voting": {"choice": ["hard", "soft"]}, "estimator.estimators": searched}
    variant = {"estimator": "sklearn.ensemble.VotingClassifier", "search": {"trials": 2, "space": space}}
    file = folder / "defs.yaml"
    data = attributes() | {"variants": {"logistic": variant}}
    file.write_text(
        yaml.safe_dump({"type": "ml_assets.components.TrainingPipeline", "attributes": data}, sort_keys=False)
    )

    if not is_told:
        assert read_pipeline(file).spec.variants["logistic"].params == {}
        return
    found = "VotingClassifier needs the parameter 'estimators', which is searched under a condition only"
    assert problems(file) == [("variants.logistic.params", found)]


def test_names_are_not_doubted_while_columns_are_unknown(folder: Path) -> None:
    source = attributes()["source"] | {"side_tables": {"buyer": {"url": "buyers.csv"}}}

    found = problems(written(folder, {"source": source}))

    assert found == [
        ("source.side_tables.buyer.columns", "missing"),
        ("source.side_tables.buyer.on", "missing"),
    ]


def test_a_window_of_one_period_may_validate_on_part_of_it(folder: Path) -> None:
    file = written(folder, {"training": {"window": 1}})

    assert read_pipeline(file).spec.training.validation_periods == 1
    assert problems(written(folder, {"training": {"window": 1, "validation_periods": 2}})) == [
        ("training.validation_periods", "2 periods of a window of 1")
    ]


@pytest.mark.parametrize(
    ("every", "start", "end", "longest"),
    [
        ("day", "2024-02-28", "2024-03-03", 4),
        ("week", "2024-01-07", "2024-01-28", 3),
        ("month", "2023-11", "2024-02", 3),
        ("year", "2020", "2024", 4),
    ],
)
def test_a_window_may_be_as_long_as_the_data(folder: Path, every: str, start: str, end: str, longest: int) -> None:
    partitions = attributes()["partitions"] | {"every": every, "start": start, "end": end}
    change = {"partitions": partitions, "training": {"window": longest}}
    assert read_pipeline(written(folder, change)).spec.training.window == longest

    change = {"partitions": partitions, "training": {"window": longest + 1}}

    (found,) = problems(written(folder, change))
    assert found[0] == "training.window"
    assert found[1].endswith(f"the pipeline has {longest} {every}s")


def test_feature_module_may_be_an_importable_module(folder: Path) -> None:
    features = {"module": "tests_of_spec_features", "columns": ["country"]}
    (folder / "tests_of_spec_features.py").write_text((folder / "features.py").read_text())
    sys.path.insert(0, str(folder))
    try:
        pipeline = read_pipeline(written(folder, {"features": features, "expectations": None}))
    finally:
        sys.path.remove(str(folder))
        sys.modules.pop("tests_of_spec_features", None)

    assert pipeline.features.file == folder / "tests_of_spec_features.py"


def test_a_problem_in_an_importable_module_names_its_file(folder: Path) -> None:
    (folder / "tests_of_spec_broken.py").write_text("LIMIT = 1 / 0\n")
    sys.path.insert(0, str(folder))
    try:
        with pytest.raises(SpecError) as error:
            read_pipeline(written(folder, {"features": {"module": "tests_of_spec_broken", "columns": ["country"]}}))
    finally:
        sys.path.remove(str(folder))

    assert f"{folder}/tests_of_spec_broken.py:1: features.module: does not import: ZeroDivisionError" in str(
        error.value
    )


def test_a_module_that_exits_is_told(folder: Path) -> None:
    (folder / "features.py").write_text("import sys\n\nsys.exit(3)\n")

    (problem,) = problems(folder / "defs.yaml")

    assert problem == ("features.module", "does not import: SystemExit: 3")


def test_reading_imports_no_heavy_library() -> None:
    heavy = ("sklearn", "pandas", "mlflow", "hamilton", "great_expectations", "dagster")
    code = (
        "import sys; from pathlib import Path; from ml_assets.reading.pipeline_file import read_pipeline; "
        f"read_pipeline(Path({str(BASE / 'defs.yaml')!r})); "
        f"print(sorted(set({heavy!r}) & set(sys.modules)))"
    )

    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)

    assert result.stdout.strip() == "[]"


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(
        [
            *(
                "country",
                "returned",
                "returned_at",
                "order_valu",
                "buyer_age",
                "price",
                "roc_auc.floor",
                ".floor",
            ),
            *(
                "features.py",
                "expectations.yaml",
                "",
                ".",
                "..",
                "/",
                "\0",
                "a\nb",
                "[key]",
                "{time}",
                "{",
                "x" * 300,
            ),
            *(
                "week",
                "2024",
                "2024-02-30",
                "9999-12",
                "0000-01",
                "999999999999d",
                "1d",
                "UTC",
                "../UTC",
                "America",
            ),
            *("sklearn", "sklearn.svm.SVC", "os.path.join", "__main__.x", "x." * 200 + "x"),
        ]
    )
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.text(min_size=1, max_size=5) | st.sampled_from(["type", "column", "[key]"]), inner, max_size=3
        )
    ),
    max_leaves=6,
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    entries = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, entry in entries:
        yield (*path, key)
        yield from places(entry, (*path, key))


@st.composite
def mutated(draw: st.DrawFn) -> dict[str, Any]:
    """The base with one to four places dropped, replaced or added to."""
    data = {"type": "ml_assets.components.TrainingPipeline", "attributes": copy.deepcopy(attributes())}
    for _ in range(draw(st.integers(1, 4))):
        *above, key = draw(st.sampled_from(list(places(data)) or [("type",)]))
        parent: Any = data
        for part in above:
            parent = parent[part]
        action = draw(st.sampled_from(["drop", "replace", "add"]))
        if action == "drop":
            del parent[key]
        elif action == "replace" or isinstance(parent, list):
            parent[key] = draw(VALUES)
        else:
            parent[draw(st.text(min_size=1, max_size=6))] = draw(VALUES)
        if not data:
            break
    return data


@settings(max_examples=400, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=mutated())
def test_any_change_is_read_or_explained(folder: Path, data: dict[str, Any]) -> None:
    file = folder / "defs.yaml"
    file.write_text(yaml.safe_dump(data, sort_keys=False, allow_unicode=True), encoding="utf-8")

    for problem in told(file):
        assert problem.found
        assert problem.expected
        assert len(str(problem).splitlines()) == (2 if problem.hint else 1)
        assert not [word for word in JARGON if word in f"{problem.expected} {problem.hint}"]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=80))
def test_any_text_is_read_or_explained(tmp_path: Path, text: str) -> None:
    file = tmp_path / "defs.yaml"
    file.write_text(text, encoding="utf-8")

    with pytest.raises(SpecError):
        read_pipeline(file)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(value=VALUES)
def test_any_file_of_expectations_is_read_or_explained(folder: Path, value: Any) -> None:
    (folder / "expectations.yaml").write_text(yaml.safe_dump(value, allow_unicode=True), encoding="utf-8")

    assert {Path(problem.file).name for problem in told(folder / "defs.yaml")} <= {"expectations.yaml"}
