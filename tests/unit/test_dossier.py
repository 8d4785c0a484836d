import itertools
import re
from dataclasses import replace
from datetime import UTC, datetime
from importlib import resources

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.dossier import ChampionFacts, DiffRow, DossierFacts, diff_of, render
from ml_assets.dossier.bars import Scale
from ml_assets.dossier.headline import OUTCOMES
from ml_assets.dossier.words import interval_words
from ml_assets.evaluation import evaluate
from tests.unit.dossier_example import (
    approvals,
    decision,
    evaluation,
    evidence,
    example,
    made_up,
    policy,
    verdicts,
)
from tests.unit.dossier_pages import HOSTILE, PNG, Page, bare, hostile

ASKS_OUTSIDE = {"src", "href", "srcset", "action", "data", "poster", "xlink:href"}


def regression() -> DossierFacts:
    rng = np.random.default_rng(4)
    day, y = np.repeat(np.arange(8), 60), rng.gamma(3, 20, 480)
    report = evaluate(
        task="regression",
        y_true=y,
        scores={"candidate": y + rng.normal(2, 5, y.size), "baseline": np.full(y.size, 60.0)},
        blocks=day,
        metrics=["wape", "bias"],
        replicates=50,
    )
    return replace(bare(), evaluation=evaluation(report))


@pytest.mark.parametrize(
    "facts",
    [example(pictures={"roc": PNG, "calibration": PNG, "slices": PNG, "extra": PNG}), bare(), regression()],
    ids=["full", "bare", "regression"],
)
def test_a_page_is_well_formed_accessible_and_asks_for_nothing_outside(facts: DossierFacts) -> None:
    html = render(facts)
    page = Page(html)

    assert html.startswith('<!DOCTYPE html>\n<html lang="en">')
    outside = [v for _, attributes in page.tags for n, v in attributes.items() if n in ASKS_OUTSIDE]
    assert all(value.startswith(("#", "data:image/png;base64,")) for value in outside)
    assert re.search(r"https?:|url\(|@import", html) is None
    assert not {tag for tag, _ in page.tags} & {"script", "link", "iframe", "object", "form", "base"}
    assert [n for _, attributes in page.tags for n in attributes if n.startswith("on")] == []
    ids = [attributes["id"] for _, attributes in page.tags if "id" in attributes]
    assert len(set(ids)) == len(ids)
    assert {v[1:] for v in outside if v.startswith("#")} <= set(ids)
    levels = [int(tag[1]) for tag, _ in page.tags if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
    assert len(page.all("caption")) == len(page.all("table"))
    assert all(th.get("scope") in {"col", "row"} for th in page.all("th"))
    assert all(image.get("alt") for image in page.all("img"))
    assert len(page.all("img")) == len(facts.pictures)
    assert all("aria-hidden" in svg or svg.get("aria-label") for svg in page.all("svg"))


@pytest.mark.parametrize("text", HOSTILE, ids=lambda text: text[:12].encode("ascii", "replace").decode())
def test_hostile_text_is_shown_and_does_nothing(text: str) -> None:
    html = render(hostile(text))
    page, usual = Page(html), Page(render(example(pictures={"roc": PNG})))

    html.encode("utf-8")
    assert {tag for tag, _ in page.tags} <= {tag for tag, _ in usual.tags} | {"ul", "li"}
    assert {n for _, attributes in page.tags for n in attributes} <= {n for _, a in usual.tags for n in a}
    assert re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\ud800-\udfff]", html) is None
    shown = re.sub("[\x00-\x08\u202a-\u202e\ud800]", "\ufffd", text)
    assert " ".join(shown.split()) in page.text


@given(st.text(max_size=60))
def test_any_text_keeps_the_page_well_formed(text: str) -> None:
    facts = bare()
    html = render(replace(facts, decision=replace(facts.decision, reason=text, partition=text)))

    html.encode("utf-8")
    assert {tag for tag, _ in Page(html).tags} == {tag for tag, _ in Page(render(facts)).tags}


def test_equal_facts_give_equal_pages() -> None:
    assert render(example()) == render(example())


@pytest.mark.parametrize("outcome", OUTCOMES)
def test_the_outcome_is_a_word_a_colour_and_a_sign(outcome: str) -> None:
    html = render(bare(outcome))

    badge = OUTCOMES[outcome]
    assert f'<span class="badge {badge.kind}"><span aria-hidden="true">{badge.sign}</span> {badge.word}</span>' in html
    assert f"<title>{badge.word}: flights/arrival_delay 2013-04, not registered</title>" in html


def test_every_section_tells_what_was_recorded() -> None:
    page = Page(render(example()))
    improvement = made_up().report.difference("roc_auc", "champion").improvement

    for words in (
        "Promoted",
        "2026-11-25 14:05:09 UTC",
        interval_words(improvement, sign="+"),
        "1,000 rows scored in a clean process, 21.4 ms for 1,000 rows, 0.41 MB",
        "2 of 2 needed approvals, by model_reviewer, until 2026-12-02 14:05:09 UTC",
        "features: new visibility, wind_speed",
        "policies/domains/operations.yaml:9",
        "At least one other person.",
        "self_approval: tomas launched the training",
        "flights/arrival_delay/raw_data [EWR|2013-03]",
        "ml-assets ledger verify",
        policy().digest,
        decision({}).model_digest,
    ):
        assert words in page.text, words


def test_a_decision_without_evidence_says_what_is_missing() -> None:
    text = Page(render(bare())).text

    for words in (
        "No evaluation is kept for this decision",
        "No verdict of a gate is recorded",
        "No upstream data version is recorded.",
        "No challenge is recorded with this decision",
        "No slice was guarded",
        "The evaluation measured no slices.",
        "Calibration was not guarded",
        "No test of material change is recorded",
        "This decision asked for no approval.",
        "No serving check is recorded",
        "What the model is made of is not recorded",
        "The decision used no setting of the policy.",
        "There was no champion to compare with.",
        "Decided not recorded",
    ):
        assert words in text, words


@pytest.mark.parametrize("part", ["challenge", "material", "serving", "fingerprint", "approval", "approval_reasons"])
@pytest.mark.parametrize("value", ["missing", None, {}], ids=["missing", "null", "empty"])
def test_any_part_of_the_evidence_may_be_missing(part: str, value: object) -> None:
    found = {name: v for name, v in evidence(made_up()).items() if name != part}
    if value != "missing":
        found[part] = value

    Page(render(example(decision=decision(found))))


def test_parts_of_a_challenge_may_be_missing() -> None:
    found = evidence(made_up())
    for name in found["challenge"]:
        rest = {key: value for key, value in found["challenge"].items() if key != name}
        Page(render(example(decision=decision({**found, "challenge": rest}))))


def test_an_evaluation_of_another_format_is_named_and_not_read() -> None:
    text = Page(render(example(evaluation={"report": {"format": 0, "metrics": 7}}))).text

    assert "No evaluation of this release's format is kept" in text


def test_a_waiting_decision_says_how_many_approvals_it_has_and_until_when() -> None:
    found = {**evidence(made_up()), "approval": {"needed": 2.0, "roles": ["model_reviewer"], "valid_days": 7.0}}
    asked = datetime(2026, 11, 25, 12, 0, tzinfo=UTC)
    waiting = decision(found, outcome="awaiting_approval", recorded_at=asked)

    text = Page(render(example(decision=waiting, approvals=approvals()[:2]))).text

    assert "1 of 2 needed approvals, by model_reviewer, until 2026-12-02 12:00:00 UTC" in text
    assert "Nobody has said anything yet." in Page(render(example(decision=waiting, approvals=()))).text


@pytest.mark.parametrize("outcome", ["promoted", "kept", "refused"])
def test_a_decision_that_asked_nobody_shows_no_open_approvals(outcome: str) -> None:
    found = {**evidence(made_up()), "approval_reasons": []}

    text = Page(render(example(decision=decision(found, outcome=outcome), approvals=()))).text

    assert "This decision asked for no approval." in text
    assert "0 of 2" not in text


def test_a_closed_gate_that_was_waived_is_shown_as_waived() -> None:
    failed = replace(verdicts(made_up().report)[0], outcome="failed", reason="3 of 14 expectations failed")
    waivers = {f"{'/'.join(failed.asset)} [{failed.partition}] {failed.check}": "olga until 2026-12-01: known outage"}

    closed = Page(render(example(verdicts=(failed,)))).text
    passed = Page(render(example(verdicts=(failed,), decision=decision({"waivers": waivers})))).text

    assert "1 of 1 verdict closed a gate." in closed
    assert "None of 1 verdict closed a gate." in passed
    assert "Waived: olga until 2026-12-01: known outage" in passed


def test_a_policy_that_changed_since_the_decision_is_pointed_out() -> None:
    changed = Page(render(example(policy=policy(**{"roc_auc.margin": 0.03})))).text

    assert "The decision was made under another policy" in changed
    assert "The decision was made under another policy" not in Page(render(example())).text


def test_only_settings_that_the_decision_used_stand_open() -> None:
    text = Page(render(example())).text
    used, others = text.split("other settings in force", 1)

    assert "roc_auc.margin" in used
    assert "slices.guarded" in used
    assert "rollback.automatic" not in used
    assert "rollback.automatic" in others
    assert "wape.ceiling" in others


def test_the_margin_is_drawn_against_a_champion_and_not_against_the_baseline() -> None:
    found = evidence(made_up())
    alone = {**found, "challenge": {**found["challenge"], "reference": "baseline"}}

    assert "margin −0.02" in render(example())
    assert "margin −0.02" not in render(example(decision=decision(alone)))


def test_the_differences_are_those_that_were_made() -> None:
    rows = diff_of(example())

    assert DiffRow(group="model", name="params.max_iter", change="changed", old="100", new="150") in rows
    assert DiffRow(group="model", name="features", change="added", old="", new="visibility") in rows
    assert DiffRow(group="model", name="sources.weather", change="added", old="", new="flights/weather.csv") in rows
    assert DiffRow(group="policy", name="roc_auc.margin", change="changed", old="0.01", new="0.02") in rows
    assert {r.name for r in rows if r.group == "data"} == {
        f"flights/arrival_delay/{stage} [{group}|2013-03]"
        for stage in ("raw_data", "features")
        for group in ("EWR", "JFK", "LGA")
    }
    assert next(r.name for r in rows if r.group == "metrics") == "roc_auc, on the same rows"
    assert "params.max_leaf_nodes" not in {r.name for r in rows}


def test_there_is_no_difference_from_oneself() -> None:
    facts = example(evaluation=evaluation(made_up(champion=False).report))
    twin = ChampionFacts(
        decision=facts.decision,
        candidate=facts.candidate,
        evaluation=facts.evaluation,
        upstream=facts.upstream,
        policy=facts.policy,
    )

    assert diff_of(replace(facts, champion=twin)) == ()
    assert "Nothing that was recorded of both differs." in render(replace(facts, champion=twin))


def test_there_is_no_difference_without_a_champion_or_from_what_is_not_recorded() -> None:
    unknown = ChampionFacts(decision=decision({}))

    assert diff_of(example(champion=None)) == ()
    assert diff_of(example(champion=unknown)) == tuple(
        row for row in diff_of(example()) if row.name.endswith("on the same rows")
    )
    assert (
        "Not recorded for both, so not compared: what the models are made of, evaluations, data versions, "
        "settings of the policy." in Page(render(example(champion=unknown))).text
    )


def test_the_policy_s_digests_are_compared_when_the_champion_s_policy_is_unknown() -> None:
    older = ChampionFacts(decision=decision({}, policy_digest="0" * 64))

    (row,) = [row for row in diff_of(example(champion=older)) if row.group == "policy"]

    assert (row.old, row.new) == ("0" * 64, policy().digest)


@given(
    st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 2)),
    st.dictionaries(st.sampled_from("abcdef"), st.integers(0, 2)),
)
def test_differences_are_exactly_what_turns_the_old_into_the_new(old: dict[str, int], new: dict[str, int]) -> None:
    words = ({f"{k} [2013]": str(v) for k, v in d.items()} for d in (old, new))
    before, after = words
    champion = ChampionFacts(decision=decision({}), upstream=before)
    rows = [r for r in diff_of(replace(bare(), upstream=after, champion=champion)) if r.group == "data"]

    if before and after:
        turned = {name: value for name, value in before.items() if name not in {r.name for r in rows}}
        turned |= {r.name: r.new for r in rows if r.change != "removed"}
        assert turned == after
        assert all(before.get(r.name, "") == r.old != r.new for r in rows)
    else:
        assert rows == []


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=6))
def test_a_scale_keeps_the_order_of_values_and_stays_within_the_drawing(values: list[float]) -> None:
    scale = Scale.over(values)
    places = [scale.at(value) for value in sorted(values)]

    assert places == sorted(places)
    assert all(0 < place < 100 for place in places)


def palettes() -> dict[str, dict[str, str]]:
    css = resources.files("ml_assets.dossier").joinpath("templates/dossier.css").read_text(encoding="utf-8")
    light, dark, printed = re.findall(r":root \{(.*?)\}", css, flags=re.DOTALL)
    colours = [dict(re.findall(r"--([\w-]+): (#[0-9a-f]{3,6})", block)) for block in (light, dark, printed)]
    return dict(zip(("light", "dark", "printed"), colours, strict=True))


def luminance(colour: str) -> float:
    digits = colour[1:] if len(colour) == 7 else "".join(2 * c for c in colour[1:])
    parts = [int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("name", ["light", "dark", "printed"])
def test_text_has_the_contrast_that_wcag_asks_for(name: str) -> None:
    colours = palettes()[name]
    pairs = [(ink, paper) for ink in ("ink", "muted", "accent", "wait", "bad") for paper in ("paper", "card")]
    pairs += [(kind, f"{kind}-bg") for kind in ("good", "wait", "bad", "calm")] + [("ink", "track")]

    weak = {}
    for ink, paper in pairs:
        low, high = sorted((luminance(colours[ink]), luminance(colours[paper])))
        if (high + 0.05) / (low + 0.05) < 4.5:
            weak[ink, paper] = (high + 0.05) / (low + 0.05)
    assert weak == {}
