"""What other tools say of the same chunks, and River's streams: run in an environment of its own.

It knows nothing of ml_assets, and ml_assets knows none of these packages:

    python -m venv rivals
    rivals/bin/python -m pip install "nannyml==0.13.1" evidently "pandas<3"
    python -m venv streams
    streams/bin/python -m pip install river pandas pyarrow

`drift_rivals.py streams FOLDER` writes River's streams as Parquet; `drift_rivals.py judge FOLDER` reads tables of
FOLDER and prints, as JSON, the columns that each tool names in each chunk, by its defaults.
"""
# ruff: noqa: T201 - a script prints

import json
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pandas as pd

ROWS, CHANGE = 60_000, 30_000


def streams(folder: Path) -> None:
    """Write one Parquet a stream: 60,000 rows of reference, then 60,000 whose concept changes in the middle."""
    from river.datasets import synth

    made = {
        "sine": [synth.Sine(classification_function=k, seed=1) for k in (0, 2)],
        "agrawal": [synth.Agrawal(classification_function=k, seed=1) for k in (0, 3)],
        "sea": [synth.SEA(variant=k, seed=1) for k in (0, 3)],
    }
    for name, (before, after) in made.items():
        parts = [_rows(before, ROWS + CHANGE), _rows(after, ROWS - CHANGE, skip=ROWS + CHANGE)]
        table = pd.concat(parts, ignore_index=True)
        table.columns = [str(column) for column in table.columns]
        table.to_parquet(folder / f"river_{name}.parquet")
    _held_out(folder)


def _held_out(folder: Path) -> None:
    """Write streams that no setting was chosen on: clusters drawn anew, LEDs that are wired anew, and two at rest."""
    from river.datasets import synth

    models = [synth.RandomRBF(seed_model=k, seed_sample=11, n_features=10) for k in (21, 22)]
    led = _rows(synth.LED(seed=12, noise_percentage=0.1, irrelevant_features=True), 2 * ROWS)
    wired = {0: 7, 7: 0, 2: 9, 9: 2, 5: 11, 11: 5}
    after = led.iloc[ROWS + CHANGE :].rename(columns=wired)[list(led.columns)]
    made = {
        "rbf": pd.concat([_rows(models[0], ROWS + CHANGE), _rows(models[1], ROWS - CHANGE)], ignore_index=True),
        "led": pd.concat([led.iloc[: ROWS + CHANGE], after], ignore_index=True),
        "waveform": _rows(synth.Waveform(seed=13, has_noise=True), 2 * ROWS),
        "mixed": _rows(synth.Mixed(seed=14), 2 * ROWS),
    }
    for name, table in made.items():
        table.columns = [str(column) for column in table.columns]
        table.to_parquet(folder / f"river_{name}.parquet")


def _rows(stream: object, count: int, skip: int = 0) -> pd.DataFrame:
    rows = [{**x, "label": int(y)} for x, y in stream.take(skip + count)]  # pyright: ignore[reportAttributeAccessIssue]
    return pd.DataFrame(rows[skip:])


def judge(folder: Path) -> Iterator[dict[str, object]]:
    """Yield for each tool, table and chunk which columns it names."""
    for path in sorted(folder.glob("chunks_*.json")):
        asked = json.loads(path.read_text(encoding="utf-8"))
        reference = pd.read_parquet(folder / asked["reference"])
        chunks = [pd.read_parquet(folder / name) for name in asked["chunks"]]
        tools = {"evidently": _evidently, "nannyml": _nannyml}
        for tool, named in tools.items():
            for number, columns in enumerate(named(reference, chunks, asked["columns"])):
                yield {"tool": tool, "table": asked["table"], "chunk": number, "columns": columns}


def _evidently(reference: pd.DataFrame, chunks: list[pd.DataFrame], columns: list[str]) -> Iterator[list[str]]:
    from evidently import DataDefinition, Dataset, Report
    from evidently.metrics import ValueDrift

    texts = [c for c in columns if not pd.api.types.is_numeric_dtype(reference[c])]
    numbers = [c for c in columns if c not in texts]
    definition = DataDefinition(numerical_columns=numbers, categorical_columns=texts)
    known = Dataset.from_pandas(reference[columns], data_definition=definition)
    for chunk in chunks:
        report = Report([ValueDrift(column=c) for c in columns], include_tests=True)
        done = report.run(Dataset.from_pandas(chunk[columns], data_definition=definition), known)
        found = json.loads(done.json())
        yield [
            c for c, test in zip(columns, found["tests"], strict=True) if str(test["status"]).upper().endswith("FAIL")
        ]


def _nannyml(reference: pd.DataFrame, chunks: list[pd.DataFrame], columns: list[str]) -> Iterator[list[str]]:
    import nannyml

    nannyml.disable_usage_logging()
    size = len(chunks[0])
    calculator = nannyml.UnivariateDriftCalculator(column_names=columns, chunk_size=size)
    result = calculator.fit(reference).calculate(pd.concat(chunks, ignore_index=True))
    found = result.filter(period="analysis").to_df()
    alerts = {c: [key for key in found.columns if key[0] == c and key[-1] == "alert"] for c in columns}
    for number in range(len(chunks)):
        yield [c for c in columns if any(bool(found[key].iloc[number]) for key in alerts[c])]


def main() -> None:
    """Write streams, or judge chunks."""
    warnings.simplefilter("ignore")
    what, folder = sys.argv[1], Path(sys.argv[2])
    if what == "streams":
        streams(folder)
    else:
        print(json.dumps(list(judge(folder))))


if __name__ == "__main__":
    main()
