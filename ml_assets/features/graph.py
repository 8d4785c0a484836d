"""The graph of feature functions: exact column lineage, and execution through Hamilton with checks on each column."""

import logging
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ml_assets.errors import FeatureError
from ml_assets.features.module import FeatureModule

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class FeatureGraph:
    """Feature functions of one module, connected by their parameter names."""

    module: FeatureModule

    def reads(self, columns: Iterable[str]) -> set[str]:
        """Return the columns that are no feature functions and that `columns` are made of, directly or not."""
        sources: set[str] = set()
        waiting, seen = list(columns), set()
        while waiting:
            name = waiting.pop()
            if name in seen:
                continue
            seen.add(name)
            function = self.module.functions.get(name)
            if function is None:
                sources.add(name)
            else:
                waiting.extend(function.parameters)
        return sources

    def compute(self, columns: Iterable[str], inputs: "pd.DataFrame") -> "pd.DataFrame":
        """Compute columns from the inputs; each function gets exactly its parameters and nothing else.

        Args:
            columns: Names to return, in order: feature functions, or columns of `inputs` passed through.
            inputs: Source and side-table columns, shape (n_rows, n_inputs).

        Returns:
            Frame with the index of `inputs`, shape (n_rows, n_columns).

        Raises:
            FeatureError: If a function raises, or returns something else than one value for each row in order.
        """
        import pandas as pd

        names = list(columns)
        functions = [name for name in names if name in self.module.functions]
        needed = self.reads(functions)
        results = _run(self.module, functions, {c: inputs[c] for c in sorted(needed)}) if functions else {}
        return pd.DataFrame({n: results[n] if n in results else inputs[n] for n in names}, index=inputs.index)


def _run(module: FeatureModule, columns: list[str], inputs: "dict[str, pd.Series]") -> "dict[str, pd.Series]":
    driver = _driver(module)
    with _quiet("hamilton.driver", "hamilton.execution.graph_functions"):
        return driver.execute(columns, inputs=dict(inputs))


@contextmanager
def _quiet(*loggers: str) -> Iterator[None]:
    # Hamilton logs each exception with its traceback and a chat address; our own error names the function.
    logs = [logging.getLogger(name) for name in loggers]
    before = [log.disabled for log in logs]
    for log in logs:
        log.disabled = True
    try:
        yield
    finally:
        for log, disabled in zip(logs, before, strict=True):
            log.disabled = disabled


def _driver(module: FeatureModule) -> Any:
    import os

    # Hamilton imports every plug-in it finds (MLflow, Dagster, scikit-learn …) unless told otherwise: 2 s.
    os.environ.setdefault("HAMILTON_AUTOLOAD_EXTENSIONS", "0")  # noqa: TID251 - read by Hamilton's import alone
    from hamilton import base, driver
    from hamilton.lifecycle import NodeExecutionMethod

    class CheckedExecution(NodeExecutionMethod):
        """Runs one function and holds its result against its inputs."""

        def run_to_execute_node(self, *, node_name: str, node_callable: Any, node_kwargs: dict, **_: Any) -> Any:
            return _checked(module, node_name, node_callable, node_kwargs)

    builder = driver.Builder().with_modules(module.module)
    return builder.with_adapters(base.DictResult(), CheckedExecution()).build()


def _checked(module: FeatureModule, name: str, function: Any, arguments: "dict[str, pd.Series]") -> "pd.Series":
    import pandas as pd

    place = f"{module.file.name}:{module.functions[name].line}: feature {name!r}"
    first = next(iter(arguments.values()))
    # Shallow copies: pandas 3 copies on write, so a function cannot change what another one reads.
    try:
        result = function(**{key: value.copy(deep=False) for key, value in arguments.items()})
    except FeatureError:
        raise
    except Exception as error:
        raise FeatureError(name, f"{place} raised {type(error).__name__}: {error}") from error
    if not isinstance(result, pd.Series):
        raise FeatureError(name, f"{place} returned a {type(result).__name__}; expected a pandas Series.")
    if len(result) != len(first):
        raise FeatureError(
            name, f"{place} returned {len(result)} rows for {len(first)}; a feature must keep every row."
        )
    if not result.index.equals(first.index):
        raise FeatureError(
            name,
            f"{place} returned its rows in another order; return the Series with the index it was given.",
        )
    if result.dtype == object:
        raise FeatureError(
            name,
            f"{place} returned dtype object; expected numbers, booleans, text or times. Convert it explicitly.",
        )
    return result.rename(name)
