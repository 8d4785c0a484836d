"""Every message about a wrong policy tree, as text; `pytest --update-golden` rewrites the expected files."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from ml_assets.errors import PolicyError
from resources.policy_files import PolicyFiles

CASES = Path(__file__).parent.parent / "golden" / "policy_errors"
NAMES = sorted(folder.parent.name for folder in CASES.glob("*/policies"))
AT = datetime(2026, 6, 1, tzinfo=UTC)


@pytest.mark.parametrize("case", NAMES)
def test_message(case: str, monkeypatch: pytest.MonkeyPatch, *, update_golden: bool) -> None:
    monkeypatch.chdir(CASES / case)

    with pytest.raises(PolicyError) as error:
        PolicyFiles("policies").effective(("flights", "arrival_delay"), AT)

    text, expected = f"{error.value}\n", CASES / case / "expected.txt"
    if update_golden:
        expected.write_text(text, encoding="utf-8")
    assert text == expected.read_text(encoding="utf-8")
