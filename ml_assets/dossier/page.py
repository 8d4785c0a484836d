"""Renders a dossier: one HTML file that asks for nothing outside of itself and runs no script."""

import base64
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from ml_assets.dossier import governance, measurements
from ml_assets.dossier.facts import DossierFacts
from ml_assets.dossier.headline import cards, headline

if TYPE_CHECKING:
    from jinja2 import Template

SECTIONS = (
    ("glance", "At a glance"),
    ("data", "Data"),
    ("metrics", "Metrics"),
    ("slices", "Slices"),
    ("calibration", "Calibration"),
    ("material", "Material change"),
    ("approvals", "Approvals"),
    ("lineage", "Lineage"),
    ("policy", "Policy"),
    ("differences", "Differences"),
)
PICTURES: Mapping[str, tuple[str, str, str]] = {
    "overview": ("metrics", "Overview", "Four panels: how good the candidate is, where, and against what."),
    "roc": ("metrics", "ROC curve", "True-positive rate against false-positive rate of each model."),
    "precision_recall": ("metrics", "Precision and recall", "Precision against recall of each model."),
    "confusion": ("metrics", "Confusion", "Rows by true and predicted class of the candidate."),
    "improvement": ("metrics", "Improvement", "The candidate's paired improvement by every metric, with intervals."),
    "predicted_vs_actual": ("metrics", "Prediction against target", "Rows by target and the candidate's prediction."),
    "residuals_over_time": ("metrics", "Error over time", "Each model's mean error by block of time."),
    "calibration": ("calibration", "Calibration", "Observed rate against mean predicted probability of each model."),
    "score_distribution": ("calibration", "Scores by outcome", "The candidate's scores for the rows of each class."),
    "slices": ("slices", "Metric by slice", "The candidate's metric on every slice, with intervals."),
    "error_by_slice": ("slices", "Error by slice", "The candidate's error on every slice, with intervals."),
}
"""Name of a picture → its section, its title, and what it shows."""

# Characters that HTML forbids, that UTF-8 cannot write, or that reorder the text that stands beside them.
_UNPRINTABLE = re.compile(
    r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff\u202a-\u202e\u2066-\u2069\ufdd0-\ufdef\ufffe\uffff]"
)


@dataclass(frozen=True, kw_only=True)
class Picture:
    """A picture within the page: `alt` says what it shows, `uri` holds all of its bytes."""

    title: str
    alt: str
    uri: str


def render(facts: DossierFacts) -> str:
    """Return the dossier as one HTML document, to be written as UTF-8; equal facts give equal pages.

    All text comes out escaped, and characters that cannot be shown as U+FFFD. What a decision did not record is
    named as such in its section.
    """
    return _template().render(
        sections=SECTIONS,
        head=headline(facts),
        cards=cards(facts),
        data=governance.data(facts),
        metrics=measurements.metrics(facts),
        slices=measurements.slices(facts),
        calibration=measurements.calibration(facts),
        material=governance.material(facts),
        approvals=governance.approvals(facts),
        lineage=governance.lineage(facts),
        policy=governance.policy(facts),
        differences=governance.differences(facts),
        pictures=_pictures(facts.pictures),
    )


@lru_cache(maxsize=1)
def _template() -> "Template":
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("ml_assets.dossier"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_printable,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("dossier.html.j2")


def _printable(value: Any) -> Any:
    """Return text with U+FFFD for what cannot be shown; markup of the template's own macros is already clean."""
    if isinstance(value, str) and not hasattr(value, "__html__"):
        return _UNPRINTABLE.sub("\ufffd", value)
    return value


def _pictures(found: Mapping[str, bytes]) -> dict[str, list[Picture]]:
    """Return the pictures by section, in the order of `PICTURES`; others come last, with the metrics."""
    sections: dict[str, list[Picture]] = {name: [] for name, _ in SECTIONS}
    known = [name for name in PICTURES if name in found]
    for name in [*known, *sorted(found.keys() - PICTURES.keys())]:
        title = name.replace("_", " ").capitalize()
        section, title, alt = PICTURES.get(name, ("metrics", title, f"Picture of the evaluation: {title}."))
        uri = f"data:image/png;base64,{base64.b64encode(found[name]).decode()}"
        sections[section].append(Picture(title=title, alt=alt, uri=uri))
    return sections
