"""Quality of a ranking, on rankings whose quality is known."""

import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import kendalltau

from schedenv.costmodel import Quality, judge_scores, mean_quality
from schedenv.errors import InputError, ModelOutputError

TIMES = np.array([4.0, 1.0, 2.0, math.inf, 8.0, 16.0, 3.0])


def scores(*values: float) -> np.ndarray:
    return np.array(values, np.float32)


def test_the_right_order_is_perfect() -> None:
    ranked = np.where(np.isfinite(TIMES), -TIMES, -100).astype(np.float32)
    assert judge_scores(TIMES, ranked) == Quality(1.0, 1.0, 1.0, 1.0, 7)


def test_the_reverse_order_is_the_worst() -> None:
    ranked = np.where(np.isfinite(TIMES), TIMES, 100).astype(np.float32)
    quality = judge_scores(TIMES, ranked)
    # The failure is ranked first; the best of the first five is the third fastest point.
    assert (quality.top1, quality.top5, quality.pairwise) == (0.0, 1 / 3, 0.0)
    assert quality.kendall_tau == pytest.approx(-1.0)


def test_a_constant_model_gets_half_of_the_pairs_and_no_tau() -> None:
    quality = judge_scores(TIMES, np.zeros(7, np.float32))
    assert (quality.pairwise, quality.kendall_tau, quality.top1) == (0.5, 0.0, 0.25)


def test_equal_times_are_no_pair() -> None:
    quality = judge_scores(np.array([1.0, 1.0, 2.0]), scores(5, 1, 3))
    assert quality.pairwise == 0.5


def test_two_failures_are_no_pair() -> None:
    assert judge_scores(np.array([1.0, math.inf, math.inf]), scores(3, 2, 1)).pairwise == 1.0


@given(st.permutations(range(8)))
def test_tau_without_ties_is_twice_the_pairwise_accuracy_less_one(order: list[int]) -> None:
    times = 1.0 + np.arange(8)
    ranked = np.array(order, np.float32)
    quality = judge_scores(times, ranked)
    assert quality.kendall_tau == pytest.approx(2 * quality.pairwise - 1)
    assert quality.kendall_tau == pytest.approx(kendalltau(-times, ranked).statistic)


def test_the_mean_counts_every_task_the_same() -> None:
    mean = mean_quality({"a": Quality(1, 1, 0.8, 0.6, 10), "b": Quality(0.5, 1, 0.6, 0.2, 90)})
    assert mean == Quality(0.75, 1.0, pytest.approx(0.7), pytest.approx(0.4), 100)


def test_the_mean_of_nothing_is_refused() -> None:
    with pytest.raises(InputError, match="expected the quality of at least one task, got none"):
        mean_quality({})


@pytest.mark.parametrize("times", [[1.0, 1.0], [math.inf, math.inf], [1.0]])
def test_points_that_do_not_differ_cannot_be_ranked(times: list[float]) -> None:
    with pytest.raises(InputError, match="a ranking needs two points of different times"):
        judge_scores(np.array(times), np.zeros(len(times), np.float32))


def test_scores_of_another_number_are_refused() -> None:
    message = "the cost model mine gave scores of shape (2,) for 7 points; expected (7,)"
    with pytest.raises(ModelOutputError, match=re.escape(message)):
        judge_scores(TIMES, scores(1, 2), "mine")
