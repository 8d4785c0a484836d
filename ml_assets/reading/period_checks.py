"""Checks of a pipeline's time partitions: the form of the first and last, and windows that fit."""

from datetime import date

from ml_assets.periods import Every, parse_key
from ml_assets.reading import wording
from ml_assets.reading.draft import Draft
from ml_assets.reading.findings import Findings

_FORMS = {
    "day": "a day such as 2013-01-31",
    "week": "a Sunday such as 2013-01-06",
    "month": "a month such as 2013-01",
    "year": "a year such as '2013'",
}
_LENGTHS = {"day": len("2013-01-31"), "week": len("2013-01-31"), "month": len("2013-01"), "year": len("2013")}
_SUNDAY = 6


def check_periods(draft: Draft, findings: Findings) -> None:
    """Record what is wrong in `partitions.start`, `partitions.end` and the lengths of `training`."""
    every = draft.at("partitions", "every")
    if every is not None:
        start, end = (_check_key(draft, field, every, findings) for field in ("start", "end"))
        if start is not None and end is not None:
            if end <= start:
                found = f"{draft.spec.partitions.end} is not after the start {draft.spec.partitions.start}"
                findings.add(("partitions", "end"), found, "the first period after the last one of the pipeline")
            else:
                _check_lengths(draft, every, _n_periods(start, end, every), findings)
    _check_window(draft, findings)


def _check_key(draft: Draft, field: str, every: Every, findings: Findings) -> date | None:
    """Return the first day of a period, or None when it is absent or wrong."""
    text = draft.at("partitions", field)
    if text is None:
        return None
    path = ("partitions", field)
    try:
        day = parse_key(text, every) if text.isascii() and len(text) == _LENGTHS[every] else None
    except ValueError:
        day = None
    if day is None:
        findings.add(path, f"{wording.quoted(text)}, and partitions.every is {every}", _FORMS[every])
    elif every == "week" and day.weekday() != _SUNDAY:
        found = f"{wording.quoted(text)}, a {day:%A}"
        findings.add(path, found, "a Sunday, with which a week begins")
        return None
    return day


def _n_periods(start: date, end: date, every: Every) -> int:
    if every in {"day", "week"}:
        return (end - start).days // (7 if every == "week" else 1)
    years = end.year - start.year
    return years if every == "year" else years * 12 + end.month - start.month


def _check_lengths(draft: Draft, every: Every, n_periods: int, findings: Findings) -> None:
    has = f"and the pipeline has {wording.count(n_periods, every)}"
    window = draft.at("training", "window")
    if isinstance(window, int) and window > n_periods:
        found = f"a window of {wording.count(window, every)}, {has}"
        findings.add(("training", "window"), found, f"at most {n_periods}, or expanding")
    validation = draft.at("training", "validation_periods")
    if validation is not None and validation > n_periods:
        found = f"{wording.count(validation, every)}, {has}"
        findings.add(("training", "validation_periods"), found, f"at most {n_periods}")


def _check_window(draft: Draft, findings: Findings) -> None:
    window, validation = draft.at("training", "window"), draft.at("training", "validation_periods")
    # 1 of 1 is fine: a window of one period sets a share of its days aside (single_period_validation).
    if isinstance(window, int) and validation is not None and validation >= max(window, 2):
        found = f"{wording.count(validation, 'period')} of a window of {window}"
        expected = f"fewer than {window}, so that some train" if window > 1 else "1, as the window has one period"
        findings.add(("training", "validation_periods"), found, expected)
