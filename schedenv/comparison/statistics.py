"""Statistics over few runs of several tasks, as Agarwal et al. (2021) define them.

"Deep Reinforcement Learning at the Edge of the Statistical Precipice", NeurIPS 2021; their own
library is `rliable` (rliable/metrics.py, rliable/library.py). Scores are one array a task, of that
task's runs, larger being better; tasks may have different numbers of runs. Intervals are percentile
bootstraps that draw runs within each task anew, so that every task keeps its weight. Where no task
has more than one run there is nothing to draw, and no interval.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from schedenv.errors import InputError

Doubles = npt.NDArray[np.float64]
Scores = Sequence[Doubles]
"""One array of scores a task."""

RESAMPLES = 2000
_CONFIDENCE = (0.025, 0.975)
_TRIMMED = 0.25


@dataclass(frozen=True)
class Interval:
    """An estimate with its 95 % bootstrap interval.

    Attributes:
        estimate: From the scores as they are.
        low: Lower end; None if there is no interval.
        high: Upper end; None if there is none.
    """

    estimate: float
    low: float | None
    high: float | None

    def text(self, digits: int = 3) -> str:
        """For people: the estimate, and its interval in parentheses if there is one."""
        estimate = f"{self.estimate:.{digits}f}"
        if self.low is None or self.high is None:
            return estimate
        return f"{estimate} ({self.low:.{digits}f}-{self.high:.{digits}f})"


def interquartile_mean(scores: Scores, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """The mean of the middle half of all runs of all tasks.

    It is as robust as the median to a few lucky runs, and uses more of the data.

    Args:
        scores: Of one contestant.
        seed: Of the bootstrap.
        resamples: How often runs are drawn anew.

    Raises:
        InputError: A task has no scores.
    """

    def overall(drawn: Sequence[Doubles]) -> Doubles:
        return _trimmed_mean(np.hstack(drawn))

    return _interval(_checked(scores), overall, seed, resamples)


def mean(scores: Scores, seed: int = 0) -> Interval:
    """The mean over tasks of each task's mean.

    Args:
        scores: Of one contestant.
        seed: Of the bootstrap.

    Raises:
        InputError: A task has no scores.
    """

    def overall(drawn: Sequence[Doubles]) -> Doubles:
        return np.asarray(np.mean([of_task.mean(axis=-1) for of_task in drawn], axis=0))

    return _interval(_checked(scores), overall, seed)


def probability_of_improvement(one: Scores, other: Scores, seed: int = 0) -> Interval:
    """How likely a run of `one` is better than a run of `other` on a task drawn at random.

    The mean over tasks of the Mann-Whitney statistic over the number of pairs; a tie counts half.

    Args:
        one: Scores of the contestant that may be better.
        other: Of the one it is compared with, on the same tasks.
        seed: Of the bootstrap, which draws both anew, independently.

    Raises:
        InputError: A task has no scores, or the numbers of tasks differ.
    """
    if len(one) != len(other):
        raise InputError(f"expected scores of as many tasks, got {len(one)} and {len(other)}")

    def probability(drawn: Sequence[Doubles]) -> Doubles:
        pairs = zip(drawn[: len(one)], drawn[len(one) :], strict=True)
        return np.asarray(np.mean([_wins(ours, theirs) for ours, theirs in pairs], axis=0))

    return _interval([*_checked(one), *_checked(other)], probability, seed)


@dataclass(frozen=True)
class Profile:
    """A performance profile: how many runs are better than each of many thresholds.

    Attributes:
        thresholds: Ascending.
        shares: Share of the runs whose score is above, each task weighing the same.
        low: Lower end of the pointwise 95 % interval; NaN where there is none.
        high: Upper end.
    """

    thresholds: Doubles
    shares: Doubles
    low: Doubles
    high: Doubles


def performance_profile(scores: Scores, thresholds: Doubles, seed: int = 0) -> Profile:
    """The distribution of scores, as a curve that never rises.

    Args:
        scores: Of one contestant.
        thresholds: Ascending, shape (k,).
        seed: Of the bootstrap.

    Raises:
        InputError: A task has no scores.
    """
    above = [of_task[:, None] > thresholds for of_task in _checked(scores)]
    rng = np.random.default_rng(seed)
    draws = np.zeros((RESAMPLES, len(thresholds)))
    for of_task in above:
        runs = len(of_task)
        # How often each run is drawn is all that counts.
        counts = rng.multinomial(runs, np.full(runs, 1 / runs), RESAMPLES)
        draws += counts @ of_task / runs
    low, high = np.quantile(draws / len(above), _CONFIDENCE, axis=0)
    if not _can_draw(above):
        low, high = np.full_like(low, np.nan), np.full_like(high, np.nan)
    shares = np.mean([of_task.mean(axis=0) for of_task in above], axis=0)
    return Profile(thresholds, shares, low, high)


def geometric_mean(ratios: Scores, seed: int = 0) -> Interval:
    """The geometric mean over tasks of each task's geometric mean.

    Args:
        ratios: Above 0.
        seed: Of the bootstrap.

    Raises:
        InputError: A task has no ratios.
    """
    logs = mean([np.log(of_task) for of_task in _checked(ratios)], seed)
    ends = [None if end is None else math.exp(end) for end in (logs.low, logs.high)]
    return Interval(math.exp(logs.estimate), *ends)


def _interval(
    scores: Scores,
    statistic: Callable[[Sequence[Doubles]], Doubles],
    seed: int,
    resamples: int = RESAMPLES,
) -> Interval:
    """A statistic of arrays whose last axis is the runs of a task, and its interval."""
    estimate = float(statistic([of_task[None] for of_task in scores])[0])
    if not _can_draw(scores):
        return Interval(estimate, None, None)
    rng = np.random.default_rng(seed)
    drawn = [
        of_task[rng.integers(len(of_task), size=(resamples, len(of_task)))] for of_task in scores
    ]
    low, high = np.quantile(statistic(drawn), _CONFIDENCE)
    return Interval(estimate, float(low), float(high))


def _can_draw(scores: Sequence[npt.NDArray[Any]]) -> bool:
    """Whether runs drawn anew can differ from those that there are."""
    return any(len(of_task) > 1 for of_task in scores)


def _checked(scores: Scores) -> list[Doubles]:
    arrays = [np.asarray(of_task, np.float64) for of_task in scores]
    if not arrays or any(of_task.ndim != 1 or not len(of_task) for of_task in arrays):
        raise InputError(
            "expected one array of scores a task, each of one run at least; got the shapes "
            f"{[of_task.shape for of_task in arrays]}"
        )
    return arrays


def _trimmed_mean(scores: Doubles) -> Doubles:
    """Without the lowest and the highest quarter, of the last axis; as `scipy.stats.trim_mean`."""
    cut = int(_TRIMMED * scores.shape[-1])
    middle = np.sort(scores, axis=-1)[..., cut : scores.shape[-1] - cut]
    return np.asarray(middle.mean(axis=-1))


def _wins(ours: Doubles, theirs: Doubles) -> Doubles:
    """Share of the pairs that we win, ties counting half, of the last axes."""
    difference = ours[..., :, None] - theirs[..., None, :]
    return np.asarray(((np.sign(difference) + 1) / 2).mean(axis=(-2, -1)))
