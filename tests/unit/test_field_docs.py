"""Docstrings of fields, read from source: the nearest class counts, and what has no source has none."""

from typing import Annotated

import pytest
from pydantic import Field, create_model
from pydantic._internal._docs_extraction import extract_docstrings_from_cls

from ml_assets.policy import compute_schema, schema
from ml_assets.spec import automation, compute, data, learning, pipeline, search
from ml_assets.spec.field_docs import field_docs
from ml_assets.spec.model import SpecModel

MODULES = (automation, compute, data, learning, pipeline, search, schema, compute_schema)
MODELS = [
    model
    for module in MODULES
    for model in vars(module).values()
    if isinstance(model, type) and issubclass(model, SpecModel) and model.__module__ == module.__name__
]


class Base(SpecModel):
    first: int = 1
    """The first
    number."""
    second: int = 2
    """The second."""
    silent: int = 3


class Derived(Base):
    second: int = 4
    """Another second."""
    told: Annotated[int, Field(description="Told by the field.")] = 5
    """Not this."""


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.__name__)
def test_docs_are_those_that_pydantic_would_read(model: type[SpecModel]):
    expected = extract_docstrings_from_cls(model, use_inspect=True)

    assert {name: text for name, text in field_docs(model).items() if name in expected} == expected
    assert expected.keys() == model.__annotations__.keys()


def test_the_nearest_class_and_the_fields_own_description_count():
    fields = Derived.model_json_schema()["properties"]

    assert {name: field.get("description") for name, field in fields.items()} == {
        "first": "The first\nnumber.",
        "second": "Another second.",
        "silent": None,
        "told": "Told by the field.",
    }


def test_a_model_without_a_source_has_the_docs_of_its_bases():
    made = create_model("Made", __base__=Derived, extra=(int, 0), __module__="nowhere")

    assert field_docs(made) == field_docs(Derived)
    assert "description" not in made.model_json_schema()["properties"]["extra"]
