"""The part of a pipeline's description about searching hyperparameters: the space, and how it is searched."""

from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from ml_assets.spec.model import Duration, ListOf, SpecModel

SearchedName = Annotated[str, StringConstraints(pattern=r"^(estimator|preprocessing)\.[A-Za-z_][A-Za-z0-9_]*$")]
"""What a search varies: estimator.<parameter of its constructor>, or preprocessing.<field>."""

# A class body that has the fields `float` and `int` cannot name these types any more.
_Floats = Annotated[tuple[float, ...], ListOf, Field(min_length=1)]
_Whole = Annotated[tuple[int, ...], ListOf, Field(min_length=1)]
_Choices = Annotated[tuple[Any, ...], ListOf, Field(min_length=1)]
_Step = Annotated[float, Field(gt=0)]


class ParameterSpec(SpecModel):
    """The values that one parameter may take: exactly one of float, int and choice."""

    float: _Floats | None = None
    """Numbers from the lowest to the highest, both included, such as [0.01, 0.3]."""
    int: _Whole | None = None
    """Whole numbers from the lowest to the highest, both included, such as [7, 63]."""
    choice: _Choices | None = None
    """Values to choose from, such as [null, 4, 8]: numbers, texts, true, false, null, or lists of these."""
    log: bool = False
    """Whether equal ratios count alike rather than equal differences; for numbers above 0, without a step."""
    step: _Step | None = None
    """Distance between neighbouring values, counted from the lowest; every number in between when absent."""
    when: dict[SearchedName, _Choices] = Field(default_factory=dict)
    """Parameters declared before this one, each with the values for which this one is searched. Otherwise the
    variant's own value stays."""


class SearchSpec(SpecModel):
    """A search for a variant's best parameters, on inner folds of the training split alone."""

    trials: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Sets of parameters to try. Needed unless the sampler is grid, which then tries every point."""
    parallel: Annotated[int, Field(ge=1, le=64)] = 1
    """Trials at once, each in a process of its own; at most the variant's cores, of all its workers together. It
    decides which trials a sampler knows of, so another number is another search."""
    workers: Annotated[int, Field(ge=1, le=64)] = 1
    """Steps that search together, each with the variant's compute: processes of the run's machine, or pods. At most
    `parallel`. What is found does not depend on it."""
    sampler: Literal["tpe", "random", "grid", "qmc"] = "tpe"
    """What proposes parameters: a tree-structured Parzen estimator, chance, every point, or a Sobol sequence."""
    pruner: Literal["none", "median", "percentile", "successive_halving", "hyperband"] = "none"
    """What ends trials early that do badly: between folds, or between rounds of training when folds is 1."""
    metric: str | None = None
    """Metric on the inner folds; selection.metric when absent."""
    folds: Annotated[int, Field(ge=1, le=20)] = 3
    """Last periods of the training split (blocks of days, when it has too few periods) that validate, each by a model
    of the rows before it."""
    time_limit: Duration | None = None
    """No further trials begin after so much time of searching; what was found until then counts."""
    space: Annotated[dict[SearchedName, ParameterSpec], Field(min_length=1)]
    """What is varied, in the order in which conditions may refer to it."""
