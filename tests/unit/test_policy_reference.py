"""The reference of policies is that of the code that reads them."""

from pathlib import Path

from ml_assets.policy.catalogue import CATALOGUE
from ml_assets.policy.reference import policy_reference
from ml_assets.policy.schema import EntryModel, KeyModel, PeopleModel, PersonModel, TeamPolicyModel

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "policy.md"


def test_the_page_is_what_the_code_says(*, update_golden: bool) -> None:
    if update_golden:
        PAGE.write_text(policy_reference(), encoding="utf-8")

    assert PAGE.read_text(encoding="utf-8") == policy_reference(), "write it anew with --update-golden"


def test_the_page_has_every_setting_and_every_field() -> None:
    page = policy_reference()

    for name, definition in CATALOGUE.items():
        metric, _, rule = name.partition(".")
        assert f"`{name}`" in page or (f"`<metric>.{rule}`" in page and f"`{metric}`" in page)
        assert definition.description in page
    for model in (TeamPolicyModel, EntryModel, PeopleModel, PersonModel, KeyModel):
        assert [field for field in model.model_fields if f"{field}` |" not in page] == []
