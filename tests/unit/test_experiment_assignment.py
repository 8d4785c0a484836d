import re
import time

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_assets.errors import EvaluationError
from ml_assets.experiments.assignment import arms, positions

SALT = "flights/arrival_delay:12-vs-9"
IDS = st.lists(st.text(max_size=20), min_size=1, max_size=60)
SHARES = st.floats(0.0, 1.0)
MANY = [f"EWR|2013-01|{number}" for number in range(50_000)]


@given(ids=IDS, others=IDS, share=SHARES)
def test_a_row_is_in_the_same_arm_whatever_rows_are_beside_it(ids, others, share):
    alone = arms(ids, salt=SALT, challenger_share=share)
    together = arms([*others, *ids], salt=SALT, challenger_share=share)
    assert together[len(others) :].tolist() == alone.tolist()


@given(ids=IDS, shares=st.tuples(SHARES, SHARES))
def test_a_larger_share_moves_rows_to_the_challenger_and_none_back(ids, shares):
    small, large = sorted(shares)
    before, after = (arms(ids, salt=SALT, challenger_share=share) for share in (small, large))
    assert not (before & ~after).any()


@given(ids=IDS)
def test_nobody_is_the_challenger_at_share_0_and_everybody_at_share_1(ids):
    assert not arms(ids, salt=SALT, challenger_share=0.0).any()
    assert arms(ids, salt=SALT, challenger_share=1.0).all()


def test_the_arms_are_the_same_in_every_release():
    found = positions(["row-1", "row-2", "", "Zürich"], salt=SALT)
    assert found.tolist() == [0.6040157119824642, 0.3512500449366328, 0.35492040344786613, 0.08850264071057323]


@pytest.mark.parametrize("share", [0.01, 0.1, 0.5])
def test_the_share_is_met_to_within_chance(share):
    found = arms(MANY, salt=SALT, challenger_share=share).mean()
    assert abs(found - share) < 4 * np.sqrt(share * (1 - share) / len(MANY))


def test_positions_are_uniform():
    counts, _ = np.histogram(positions(MANY, salt=SALT), bins=50, range=(0.0, 1.0))
    expected = len(MANY) / 50
    # 49 degrees of freedom; 94.6 is the quantile at 0.9999.
    assert ((counts - expected) ** 2 / expected).sum() < 94.6


def test_two_experiments_split_the_rows_independently():
    first, second = (arms(MANY, salt=salt, challenger_share=0.3) for salt in (SALT, "flights/arrival_delay:13-vs-9"))
    assert abs(np.corrcoef(first, second)[0, 1]) < 4 / np.sqrt(len(MANY))


def test_salt_and_id_do_not_run_into_each_other():
    assert positions(["bc"], salt="a") != positions(["c"], salt="ab")


@pytest.mark.parametrize("kind", [np.array, list, pa.array, lambda ids: pa.chunked_array([ids[:2], ids[2:]])])
def test_ids_come_in_any_sequence(kind):
    ids = ["a", "b", "c", "d", "e"]
    assert positions(kind(ids), salt=SALT).tolist() == positions(ids, salt=SALT).tolist()


def test_no_rows_give_no_arms():
    assert arms([], salt=SALT, challenger_share=0.1).shape == (0,)


def test_a_million_rows_take_seconds():
    ids = np.array([f"EWR|2013-01|{number}" for number in range(1_000_000)], dtype=object)
    start = time.process_time()
    arms(ids, salt=SALT, challenger_share=0.1)
    assert time.process_time() - start < 10


@pytest.mark.parametrize(
    ("ids", "salt", "share", "message"),
    [
        (["a"], SALT, 1.5, "challenger_share is 1.5; expected a share from 0 to 1, such as 0.1."),
        (["a"], SALT, float("nan"), "challenger_share is nan; expected a share from 0 to 1"),
        (["a"], "", 0.1, "the salt of an assignment is empty; expected the experiment's name"),
        (["a", None, 3], SALT, 0.1, "2 of 3 row ids are no strings, such as None in row 1; expected the row_id column"),
        ([["a"]], SALT, 0.1, "row_ids has shape (1, 1); expected one id for each row"),
    ],
)
def test_what_cannot_be_assigned_is_refused(ids, salt, share, message):
    with pytest.raises(EvaluationError, match=re.escape(message)):
        arms(ids, salt=salt, challenger_share=share)
