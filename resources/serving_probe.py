"""The program of a serving check: measures one model in a process that knows the registry's address alone.

It is given a request as JSON on standard input, and answers with one JSON object in each line of standard output;
what it has said stays said when the model brings the process down afterwards. `python -m resources.serving_probe`.
"""

import json
import os
import signal
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ml_assets.errors import MlAssetsError
from ml_assets.training import predict
from resources.model_files import model_digest, read_model
from resources.model_registry import MlflowRegistry
from resources.serving_judgement import LATENCY_CALLS, LATENCY_ROWS
from resources.stored_models import StoredModel

if TYPE_CHECKING:
    import pandas as pd

FINISHED = "finished"

Say = Callable[..., None]
"""Tells what was found, as keywords."""


def main() -> None:
    """Answer the request on standard input."""
    say = _private_output()
    request = json.load(sys.stdin)
    # Whoever asked kills a process that takes too long; this one must end also when that one is gone.
    signal.alarm(request["alarm_seconds"])
    try:
        _measure(request, say)
    except MlAssetsError as error:
        say(problem=str(error))
    say(step=FINISHED)


def _private_output() -> Say:
    """Keep standard output for answers: what a model's code prints goes to standard error from now on."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)

    def say(**found: Any) -> None:
        answers.write(f"{json.dumps(found)}\n")
        answers.flush()

    return say


def _measure(request: Mapping[str, Any], say: Say) -> None:
    say(step="loading the model")
    started = time.perf_counter()
    registry = MlflowRegistry(request["tracking_uri"], request["artifact_root"])
    stored = registry.stored(request["model_uri"])
    data = stored.model_file()
    say(model_digest=model_digest(data), n_bytes=len(data))
    model = read_model(stored.model_uri, data, digest=stored.recorded_digest, trusted_types=request["trusted_types"])
    say(load_seconds=time.perf_counter() - started)
    _measure_example(stored, model, request["task"], say)
    _measure_rows(model, _read_rows(request["rows_file"]), request["task"], say)


def _measure_example(stored: StoredModel, model: Any, task: Any, say: Say) -> None:
    say(step="scoring the input example")
    try:
        say(signature=stored.signature())
        say(example_scores=predict(model, stored.example(), task=task).tolist())
    except MlAssetsError as error:
        # The rows are scored all the same: whoever reads the report is told everything at once.
        say(problem=f"The input example cannot be scored: {error}")


def _measure_rows(model: Any, rows: "pd.DataFrame", task: Any, say: Say) -> None:
    say(step="scoring the rows")
    say(scores=predict(model, rows, task=task).tolist())
    say(reversed_scores=predict(model, rows.iloc[::-1], task=task)[::-1].tolist())
    say(half_scores=predict(model, rows.iloc[: (len(rows) + 1) // 2], task=task).tolist())
    say(step="measuring the latency")
    timed = rows.iloc[[i % len(rows) for i in range(LATENCY_ROWS)]]
    seconds: list[float] = []
    for _ in range(LATENCY_CALLS):
        started = time.perf_counter()
        predict(model, timed, task=task)
        seconds.append(time.perf_counter() - started)
    say(latency_ms=statistics.median(seconds) * 1_000)


def _read_rows(file: str) -> "pd.DataFrame":
    import pyarrow as pa

    with pa.OSFile(file, "rb") as source:
        return pa.ipc.open_file(source).read_pandas()


if __name__ == "__main__":
    main()
