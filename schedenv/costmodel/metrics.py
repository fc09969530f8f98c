"""How good a cost model's ranking is, judged on measured points."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import numpy as np
import numpy.typing as npt

from schedenv.costmodel.data import TaskData
from schedenv.costmodel.model import CostModel, check_scores
from schedenv.errors import InputError

Scores = npt.NDArray[np.float32]


class Quality(msgspec.Struct, frozen=True):
    """Quality of a ranking; 1 is perfect for all four.

    Attributes:
        top1: Best time over that of the point ranked first; 0 if that one failed. TLP's and
            TenSet's top-1 score.
        top5: Best time over the best of the five ranked first.
        pairwise: Part of the pairs of different times that are ordered right; equal scores are
            half right. 0.5 is chance.
        kendall_tau: Kendall's tau-b; 0 is chance.
        points: How many points were ranked.
    """

    top1: float
    top5: float
    pairwise: float
    kendall_tau: float
    points: int


def judge_scores(estimates_s: npt.NDArray[np.float64], scores: Scores, name: str = "it") -> Quality:
    """Quality of scores.

    Points of equal scores are taken in the order given, so a constant model gets what the first
    points happen to be.

    Args:
        estimates_s: Seconds a call, shape (n,); infinity for a point that failed.
        scores: Higher is faster, shape (n,).
        name: Whose scores, for messages.

    Raises:
        ModelOutputError: The scores are not n finite numbers.
        InputError: There are no two points of different times.
    """
    check_scores(scores, len(estimates_s), name)
    finite = np.isfinite(estimates_s)
    if not finite.any() or len(np.unique(estimates_s)) < 2:
        raise InputError(
            f"a ranking needs two points of different times, got {len(estimates_s)} points "
            f"of {len(np.unique(estimates_s))}; measure more with schedenv collect"
        )
    best_s = estimates_s.min()
    order = np.argsort(-scores, kind="stable")
    # A failure orders behind everything; two of them are equal.
    speed = _dense(-estimates_s)
    return Quality(
        top1=float(best_s / estimates_s[order[:1]].min()),
        top5=float(best_s / estimates_s[order[:5]].min()),
        pairwise=_pairwise(speed, scores),
        kendall_tau=_kendall_tau(speed, scores),
        points=len(estimates_s),
    )


def judge(model: CostModel, tasks: Sequence[TaskData]) -> dict[str, Quality]:
    """Quality of a model on each task, by name.

    Raises:
        ModelOutputError: The model predicts something else than finite numbers.
        InputError: A task has no two points of different times.
    """
    return {
        entry.task.name: judge_scores(
            entry.estimates_s, model.predict(entry.task, entry.space, entry.points), model.kind
        )
        for entry in tasks
    }


def mean_quality(qualities: Mapping[str, Quality]) -> Quality:
    """The mean over tasks, every task counting the same; points are added up.

    Raises:
        InputError: There is no task.
    """
    if not qualities:
        raise InputError("expected the quality of at least one task, got none")
    rows = list(qualities.values())

    def mean(name: str) -> float:
        return float(np.mean([getattr(row, name) for row in rows]))

    return Quality(
        mean("top1"), mean("top5"), mean("pairwise"), mean("kendall_tau"),
        sum(row.points for row in rows),
    )  # fmt: skip


def _dense(values: npt.NDArray[np.float64]) -> npt.NDArray[np.intp]:
    """Ranks without gaps; equal values share one."""
    return np.unique(values, return_inverse=True)[1]


def _pairwise(speed: npt.NDArray[np.intp], scores: Scores) -> float:
    right = total = 0.0
    for index in range(len(speed) - 1):
        truth = np.sign(speed[index] - speed[index + 1 :])
        guess = np.sign(scores[index] - scores[index + 1 :])
        differ = truth != 0
        right += float(np.sum(differ & (truth == guess)) + 0.5 * np.sum(differ & (guess == 0)))
        total += float(differ.sum())
    return right / total


def _kendall_tau(speed: npt.NDArray[np.intp], scores: Scores) -> float:
    from scipy.stats import kendalltau

    tau = float(kendalltau(speed, scores).statistic)
    # Of equal scores the statistic is 0 / 0: they say nothing.
    return 0.0 if np.isnan(tau) else tau
