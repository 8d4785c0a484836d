"""Every message about a wrong description, as text; `pytest --update-golden` rewrites the expected files."""

import shutil
from pathlib import Path

import pytest

from ml_assets.errors import SpecError
from ml_assets.reading.pipeline_file import read_pipeline

CASES = Path(__file__).parent.parent / "golden" / "spec_errors"
NAMES = sorted({file.parent.name for file in CASES.glob("*/defs.yaml")} - {"base"})


def laid_out(case: str, folder: Path) -> Path:
    """Copy the base pipeline and over it the files in which the case differs; return the YAML."""
    shutil.copytree(CASES / "base", folder, dirs_exist_ok=True)
    shutil.copytree(CASES / case, folder, dirs_exist_ok=True)
    return folder / "defs.yaml"


def test_the_base_is_without_problems(tmp_path: Path) -> None:
    pipeline = read_pipeline(laid_out("base", tmp_path))

    assert (pipeline.spec.team, pipeline.spec.name) == ("shop", "returns")
    assert [e.type for e in pipeline.raw_data_expectations] == [
        "expect_column_values_to_not_be_null",
        "expect_column_values_to_be_between",
    ]
    assert [e.severity for e in pipeline.raw_data_expectations] == ["error", "warning"]
    assert pipeline.features_expectations[0].kwargs == {"column": "order_value", "min_value": 0}
    assert list(pipeline.features.functions) == ["returned", "order_value", "last_return"]
    assert pipeline.used_columns == {
        "buyer_age",
        "country",
        "customer_id",
        "order_id",
        "ordered_at",
        "price",
        "quantity",
        "returned_at",
    }
    assert pipeline.line(("label", "column")) == 45
    assert pipeline.line(("variants", "forest", "params")) == 55


@pytest.mark.parametrize("case", NAMES)
def test_message(case: str, tmp_path: Path, *, update_golden: bool) -> None:
    file = laid_out(case, tmp_path)

    with pytest.raises(SpecError) as error:
        read_pipeline(file)

    text = str(error.value).replace(f"{tmp_path}/", "") + "\n"
    expected = CASES / case / "expected.txt"
    if update_golden:
        expected.write_text(text, encoding="utf-8")
    assert text == expected.read_text(encoding="utf-8")
