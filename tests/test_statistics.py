"""Means over seeds, paired t-tests and Holm's correction, against numbers derived by hand."""

import math
import subprocess
import sys
from dataclasses import astuple

import numpy as np
import pytest

from gitloss.metrics import statistics
from gitloss.metrics.statistics import holm, paired, summary
from modules import ROOT


def test_summary():
    """1, 2, 6: mean 3, squared deviations 4 + 1 + 9 = 14, divided by 2: std sqrt(7)."""
    assert astuple(summary([1, 2, 6])) == pytest.approx((3.0, math.sqrt(7.0), 3))


def test_a_summary_of_one_value_and_of_none():
    mean, std, count = astuple(summary([4.5]))
    assert (mean, count) == (4.5, 1) and math.isnan(std)
    mean, std, count = astuple(summary([]))
    assert math.isnan(mean) and math.isnan(std) and count == 0


def test_paired():
    """Differences 1, 2, 3: mean 2, std 1, standard error 1 / sqrt(3), t = 2 sqrt(3).

    With 2 degrees of freedom the distribution of t is F(t) = 1/2 + t / (2 sqrt(2 + t^2)). So
    p = 1 - t / sqrt(2 + t^2) = 1 - sqrt(12 / 14) = 0.0741799. F(q) = 0.975 gives
    q^2 = 2 * 0.95^2 / (1 - 0.95^2), q = 4.302653, and the interval is 2 -+ 4.302653 / sqrt(3).
    """
    found = paired([2, 4, 6], [1, 2, 3])
    assert astuple(found)[:3] == pytest.approx((2.0, 1.0, 3))
    half = math.sqrt(2 * 0.95**2 / (1 - 0.95**2) / 3)
    assert found.interval == pytest.approx((2 - half, 2 + half))
    assert found.p == pytest.approx(1 - math.sqrt(12 / 14))


def test_pairs_and_not_groups_are_compared():
    """Values 0, 10, 20 against 1, 11, 22: differences -1, -1, -2 of mean -4/3, std sqrt(1/3),
    standard error 1/3, t = -4, p = 1 - 4 / sqrt(18) = 0.0572; of the groups, whose std is 10, a
    difference of 1.33 says nothing.
    """
    found = paired([0, 10, 20], [1, 11, 22])
    assert found.p == pytest.approx(1 - 4 / math.sqrt(18))
    assert astuple(found)[:2] == pytest.approx((-4 / 3, math.sqrt(1 / 3)))


@pytest.mark.filterwarnings('error')
@pytest.mark.parametrize(
    'values, baseline, mean, p',
    [
        ([0.5, 0.7], [0.5, 0.7], 0.0, 1.0),
        # 0.3 - 0.1 and 0.8 - 0.6 differ by rounding alone: a t-test would find p = 1e-16.
        ([0.3, 0.8], [0.1, 0.6], 0.2, math.nan),
        ([0.9], [0.8], 0.1, math.nan),
        ([], [], math.nan, math.nan),
        ([0.0, 0.0], [0.0, 0.0], 0.0, 1.0),
    ],
)
def test_differences_that_do_not_vary_have_no_interval(values, baseline, mean, p):
    found = paired(values, baseline)
    np.testing.assert_allclose([found.mean, found.p], [mean, p])
    assert np.isnan(found.interval).all() and found.count == len(values)
    assert found.std == 0 if len(values) > 1 else math.isnan(found.std)


def test_without_scipy_the_differences_are_left(monkeypatch):
    monkeypatch.setattr(statistics, 'find_spec', lambda name: None)
    found = paired([2, 4, 6], [1, 2, 3])
    assert astuple(found)[:3] == pytest.approx((2.0, 1.0, 3))
    assert np.isnan([*found.interval, found.p]).all()


@pytest.mark.parametrize(
    'values, baseline, message',
    [
        ([1.0, 2.0], [1.0], 'baseline: expected 2 values. Received: 1'),
        ([1.0, math.nan], [1.0, 2.0], r'values: expected finite numbers. Received: \[1.0, nan\]'),
        ([1.0], [math.inf], r'baseline: expected finite numbers. Received: \[inf\]'),
    ],
)
def test_values_that_are_refused(values, baseline, message):
    with pytest.raises(ValueError, match=message):
        paired(values, baseline)


def test_holm():
    """Sorted 0.01, 0.02, 0.022, 0.5, times 4, 3, 2, 1: 0.04, 0.06, 0.044, 0.5. The third is not
    below the second.
    """
    assert holm([0.5, 0.01, 0.022, 0.02]) == pytest.approx([0.5, 0.04, 0.06, 0.06])
    assert holm([0.4, 0.9]) == pytest.approx([0.8, 0.9])
    assert holm([0.7, 0.6]) == [1.0, 1.0] and holm([]) == []


def test_holm_passes_over_what_was_not_compared():
    """Two comparisons, not three: 0.01 * 2 and 0.03."""
    found = holm([0.03, math.nan, 0.01])
    assert found[::2] == pytest.approx([0.03, 0.02]) and math.isnan(found[1])


def test_scipy_is_imported_when_it_is_needed():
    code = 'import sys; from gitloss.metrics import statistics; print("scipy" in sys.modules)'
    found = subprocess.run(
        [sys.executable, '-c', code], cwd=ROOT, stdout=subprocess.PIPE, check=True, timeout=120
    )
    assert found.stdout.split() == [b'False']
