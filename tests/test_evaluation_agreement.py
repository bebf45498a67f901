"""Agreement against published numbers and against what its definition demands."""

from __future__ import annotations

import numpy as np
import pytest

from tumsyn_bids.evaluation.agreement import agreement, icc_2_1

#: Shrout and Fleiss (1979), table 2: six people, four judges. ICC(2,1) = .29.
RATINGS = [[9, 2, 5, 8], [6, 1, 3, 2], [8, 4, 6, 8], [7, 1, 2, 6], [10, 5, 6, 9], [6, 2, 4, 7]]


def test_icc_is_the_published_one():
    icc, low, high = icc_2_1(RATINGS)
    assert icc == pytest.approx(0.2898, abs=1e-4)
    # As R's psych::ICC and pingouin give them.
    assert (low, high) == pytest.approx((0.0188, 0.7611), abs=1e-3)


def test_a_shift_lowers_icc_but_not_the_correlation():
    first = np.arange(10.0)
    second = first + 3 + np.tile([0.1, -0.1], 5)
    found = agreement(first, second)
    assert found.pearson > 0.99
    assert found.icc < 0.9
    assert found.icc_low < found.icc < found.icc_high
    assert found.bias == pytest.approx(3)
    assert found.limit_high - found.bias == pytest.approx(1.96 * np.std([0.1, -0.1] * 5, ddof=1))


def test_people_without_both_values_are_left_out():
    found = agreement([1, 2, 3, np.nan, 5], [1.1, 2.1, np.nan, 4, 5.2])
    assert found.n == 3
    assert agreement([1, 2, np.nan], [1, 2, 3]).n == 2
    assert np.isnan(agreement([1, 2, np.nan], [1, 2, 3]).icc)


def test_without_spread_there_is_no_number():
    found = agreement([2, 2, 2, 2], [2, 2, 2, 2])
    assert np.isnan(found.icc)
    assert np.isnan(found.pearson)
    assert found.bias == 0
