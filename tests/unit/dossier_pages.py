"""Facts of dossiers at their extremes, and a reader of pages: what tests of the dossier share."""

from dataclasses import replace
from html.parser import HTMLParser

from ml_assets.dossier import DossierFacts
from tests.unit.dossier_example import (
    FINGERPRINT,
    candidate,
    decision,
    evidence,
    example,
    made_up,
    setting,
)

VOID = {"meta", "img", "line", "circle", "br"}
PNG = b"\x89PNG\r\n\x1a\n\x00picture"
HOSTILE = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'; DROP TABLE decisions; --",
    "</style></title></pre><svg onload=alert(1)>",
    "{{ 7 * 7 }}{% include 'x' %}&lt;b&gt;",
    "שלום עולם \u202egnisrever\u202c مرحبا",
    "nul\x00 bell\x07 surrogate\ud800 end",
    "x" * 3_000,
    "a long reason " * 25,
)


class Page(HTMLParser):
    """What a page is made of; fails where tags are not closed in order."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        names = [name for name, _ in attrs]
        assert len(set(names)) == len(names), (tag, attrs)
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID, tag
        self.handle_starttag(tag, attrs)

    def handle_endtag(self, tag: str) -> None:
        assert self.open, tag
        assert self.open.pop() == tag, (tag, self.open)

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self) -> str:
        """All text, with single spaces."""
        return " ".join(" ".join(self.words).split())

    def all(self, tag: str) -> list[dict[str, str]]:
        """Return the attributes of all elements of a kind."""
        return [attributes for name, attributes in self.tags if name == tag]


def bare(outcome: str = "refused") -> DossierFacts:
    """Return a decision that recorded nothing beside itself."""
    return example(
        decision=decision(
            {},
            outcome=outcome,
            reason="decided by an older release",
            model_version=None,
            model_digest="",
            recorded_at=None,
            launched_by=(),
        ),
        candidate={},
        evaluation={},
        verdicts=(),
        approvals=(),
        upstream={},
        champion=None,
    )


def hostile(text: str) -> DossierFacts:
    """Return facts in which everything that comes from outside is the text."""
    facts = example()
    found = evidence(made_up())
    slices = [{**guard, "column": text, "value": text, "reason": text} for guard in found["challenge"]["slices"]]
    tests = [{**test, "name": text, "sentence": text, "evidence": {text: text}} for test in found["material"]]
    found |= {
        "challenge": {**found["challenge"], "reason": text, "metric": text, "slices": slices, "outcome": text},
        "material": tests,
        "serving": {**found["serving"], "problems": [text], "model_digest": text},
        "fingerprint": {**FINGERPRINT, "sources": {text: text}, "estimator": text, "features": [text]},
        "approval": {"needed": 2, "roles": [text], "expires_at": text},
    }
    changed = decision(
        found,
        pipeline=(text, text),
        partition=text,
        reason=text,
        model_name=text,
        model_version=text,
        champion_version=text,
        run_id=text,
        decided_by=text,
        launched_by=(text, ""),
        model_digest=text,
    )
    said = {"person": text, "action": text, "at": text, "reason": text, "counts": False, "why": text}
    told = setting("roc_auc.floor", (text,), "allowed", text, owner=text, file=text)
    return replace(
        facts,
        decision=changed,
        spec=replace(facts.spec, description=text, owners=(text,), product=text, regulations=(text,), unit=text),
        candidate={**candidate(), "variant": text, "model_uri": text},
        evaluation={**facts.evaluation, "champion": {"problem": text}},
        verdicts=tuple(
            replace(v, check=text, reason=text, partition=text, evidence={text: [text]}) for v in facts.verdicts
        ),
        policy=replace(facts.policy, settings={**facts.policy.settings, text: told}, chains={text: (told, told)}),
        approvals=(said,),
        upstream={text: text},
        pictures={text: PNG},
    )
