"""The reference of compute.yaml is that of the code that reads it."""

from pathlib import Path

from ml_assets.policy.compute_reference import compute_reference
from ml_assets.policy.compute_schema import AgeingModel, AmountsModel, ComputeModel, ProfileModel, SpotModel, TeamModel
from ml_assets.spec.field_docs import field_docs

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "compute.md"


def test_the_page_is_what_the_code_says(*, update_golden: bool) -> None:
    if update_golden:
        PAGE.write_text(compute_reference(), encoding="utf-8")

    assert PAGE.read_text(encoding="utf-8") == compute_reference(), "write it anew with --update-golden"


def test_the_page_has_every_field_with_its_meaning() -> None:
    page = compute_reference()

    for model in (ComputeModel, ProfileModel, SpotModel, TeamModel, AmountsModel, AgeingModel):
        docs = field_docs(model)
        for name in model.model_fields:
            assert f"{name}` |" in page
            assert " ".join(docs[name].split()) in page
