"""The statistics of a race, against their definitions and against scipy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from schedenv.comparison.statistics import (
    geometric_mean,
    interquartile_mean,
    mean,
    performance_profile,
    probability_of_improvement,
)
from schedenv.errors import InputError

few = settings(max_examples=25)
values = st.floats(0, 1, allow_subnormal=False)
score_lists = st.lists(
    st.integers(1, 6).flatmap(lambda runs: arrays(np.float64, runs, elements=values)),
    min_size=1,
    max_size=4,
)


@few
@given(score_lists)
def test_the_interquartile_mean_is_scipys_trimmed_mean_of_all_runs(scores: list) -> None:
    found = interquartile_mean(scores)
    assert found.estimate == pytest.approx(stats.trim_mean(np.concatenate(scores), 0.25))
    assert (found.low is None) == all(len(runs) == 1 for runs in scores)
    assert found.low is None or found.low <= found.high


@few
@given(score_lists, score_lists)
def test_the_probability_of_improvement_is_the_mean_mann_whitney_statistic(
    one: list, other: list
) -> None:
    tasks = min(len(one), len(other))
    one, other = one[:tasks], other[:tasks]
    expected = np.mean(
        [
            stats.mannwhitneyu(ours, theirs).statistic / (len(ours) * len(theirs))
            for ours, theirs in zip(one, other, strict=True)
        ]
    )
    found = probability_of_improvement(one, other)
    assert found.estimate == pytest.approx(expected)
    assert (found.low is None) == all(len(runs) == 1 for runs in (*one, *other))
    assert found.low is None or 0 <= found.low <= found.high <= 1
    assert probability_of_improvement(other, one).estimate == pytest.approx(1 - expected)


@few
@given(score_lists)
def test_nobody_improves_on_himself(scores: list) -> None:
    assert probability_of_improvement(scores, scores).estimate == pytest.approx(0.5)


@few
@given(score_lists)
def test_a_profile_falls_from_all_runs_to_none(scores: list) -> None:
    profile = performance_profile(scores, np.linspace(-0.1, 1.0, 12))
    assert profile.shares[0] == 1
    assert profile.shares[-1] == 0
    assert (np.diff(profile.shares) <= 0).all()
    none = all(len(runs) == 1 for runs in scores)
    assert (np.isnan(profile.low) if none else profile.low <= profile.high).all()
    at_half = np.mean([(of_task > profile.thresholds[6]).mean() for of_task in scores])
    assert profile.shares[6] == pytest.approx(at_half)


@few
@given(score_lists)
def test_every_task_weighs_the_same_in_a_mean(scores: list) -> None:
    assert mean(scores).estimate == pytest.approx(np.mean([of_task.mean() for of_task in scores]))
    assert mean([*scores, *scores]).estimate == pytest.approx(mean(scores).estimate)


def test_a_geometric_mean_of_ratios_and_of_their_inverses_are_inverse() -> None:
    ratios = [np.array([1.0, 4.0]), np.array([2.0, 8.0, 0.5])]
    found = geometric_mean(ratios)
    assert found.estimate == pytest.approx(2.0)
    assert geometric_mean([1 / of_task for of_task in ratios]).estimate == pytest.approx(0.5)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        found = mean([rng.normal(size=20), rng.normal(1.0, size=20)])
        covered += found.low <= 0.5 <= found.high
    # A percentile bootstrap of twenty runs is a little narrow.
    assert 0.88 <= covered / 200 <= 0.99


def test_equal_seeds_give_equal_intervals() -> None:
    scores = [np.random.default_rng(1).random(10)]
    assert interquartile_mean(scores, 3) == interquartile_mean(scores, 3)
    assert interquartile_mean(scores, 3) != interquartile_mean(scores, 4)


def test_a_task_without_runs_is_refused() -> None:
    with pytest.raises(InputError) as caught:
        interquartile_mean([np.array([0.5]), np.array([])])
    assert str(caught.value) == (
        "expected one array of scores a task, each of one run at least; got the shapes [(1,), (0,)]"
    )
    with pytest.raises(InputError, match="as many tasks, got 1 and 2"):
        probability_of_improvement([np.ones(1)], [np.ones(1)] * 2)


def test_one_run_a_task_has_no_interval() -> None:
    scores = [np.array([0.5]), np.array([0.7])]
    found = interquartile_mean(scores)
    assert (found.low, found.high) == (None, None)
    assert found.text() == "0.600"
    assert probability_of_improvement(scores, scores).text() == "0.500"
    assert geometric_mean(scores).low is None
    assert np.isnan(performance_profile(scores, np.array([0.6])).low).all()
    assert interquartile_mean([*scores, np.array([0.5, 0.6])]).low is not None
