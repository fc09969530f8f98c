"""How do the estimates of a live search compare with a careful timing of the same kernels?

    python runs/search_estimates.py --tasks core/grp-3,core/c2d-3 --table runs/search_estimates.md
        [--agent greedy-forecast] [--seconds 120] [--seed 1]

An agent searches for a while. Then the candidates with the best estimates, and some of the others
that it believed within twice of the best, are timed in turn, in calm moments where there are any.
A search that compared all candidates at one scale has estimates that differ from those times by
one factor; `spread` is the standard deviation of the logarithm of what is left, `tau` Kendall's.
`chosen for luck` is how much longer the best-looking candidates take, against their estimates, than
others; `shift` the factor between estimates of the second and of the first half of the search.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.stats import kendalltau

from schedenv import hardware as hw
from schedenv.measure import Result
from schedenv.measure.local import LocalMeasurer
from schedenv.space import Space
from schedenv.tasks import resolve
from schedenv.tuning.agent import make_agent
from schedenv.tuning.finalists import interleave

BEST, OTHERS = 12, 24
WITHIN = 2.0
ROUNDS, CAREFUL_S = 20, 60.0
BATCH = 64


def searched(name: str, agent_name: str, seconds: float, seed: int) -> list[Result]:
    """What a search measured, in order."""
    task, hardware = resolve(name), hw.detect()
    agent = make_agent(agent_name, Space(task.mod, hardware), seed)
    results: list[Result] = []
    best_s: float | None = None
    end_s = time.monotonic() + seconds
    with LocalMeasurer(task, hardware) as measurer:
        while time.monotonic() < end_s:
            told = measurer.measure(agent.ask(BATCH), best_s)
            agent.tell(told)
            results += [result for result in told if result.ok and not result.repeated]
            best_s = min(map(_estimate_s, results), default=None)
    return results


def chosen(results: Sequence[Result], seed: int) -> list[tuple[int, Result]]:
    """The best by their estimates, then some of the others; each with its place in the search."""
    ranked = sorted(enumerate(results), key=lambda pair: _estimate_s(pair[1]))
    limit_s = WITHIN * _estimate_s(ranked[0][1])
    others = [pair for pair in ranked[BEST:] if _estimate_s(pair[1]) < limit_s]
    picked = np.random.default_rng(seed).permutation(len(others))[:OTHERS]
    return ranked[:BEST] + [others[index] for index in sorted(picked)]


def row(name: str, agent_name: str, seconds: float, seed: int) -> str:
    """One line of the table."""
    results = searched(name, agent_name, seconds, seed)
    slowdowns = [slowdown for result in results for slowdown in result.slowdowns]
    picked = chosen(results, seed)
    task, hardware = resolve(name), hw.detect()
    with LocalMeasurer(task, hardware, workers=1, seed=seed + 1) as measurer:
        kernels = measurer.load([result.point for _, result in picked])
        timed = interleave(kernels, ROUNDS, CAREFUL_S, seed, measurer.slowdown)
    known = [
        (place, _estimate_s(result), float(np.quantile(samples_s, 0.25)), rank < BEST)
        for rank, ((place, result), (_, samples_s)) in enumerate(zip(picked, timed, strict=True))
        if samples_s
    ]
    places, estimates_s, times_s, best = (np.array(column) for column in zip(*known, strict=True))
    logs = np.log(times_s / estimates_s)
    tau = kendalltau(estimates_s, times_s).statistic
    luck = _ratio(logs[best], logs[~best])
    late = places >= len(results) / 2
    shift = _ratio(logs[~late], logs[late])
    return (
        f"| {name} | {len(results)} | {np.quantile(slowdowns, 0.25):.2f} to "
        f"{np.quantile(slowdowns, 0.75):.2f} | {len(known)} | {np.std(logs):.3f} | {tau:.2f} | "
        f"{luck:.2f} | {shift:.2f} | {times_s.min() * 1e6:.4g} us |"
    )


def _ratio(some: npt.NDArray[np.float64], others: npt.NDArray[np.float64]) -> float:
    """Of geometric means, given logarithms; not a number if one of them has no values."""
    return math.exp(some.mean() - others.mean()) if some.size and others.size else math.nan


def _estimate_s(result: Result) -> float:
    assert result.estimate_s is not None
    return result.estimate_s


def main() -> None:
    """Print, or write, the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default="core/grp-3,core/c2d-3")
    parser.add_argument("--agent", default="greedy-forecast")
    parser.add_argument("--seconds", type=float, default=120.0, help="of search, a task")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--table", type=Path, help="write the table here as well")
    arguments = parser.parse_args()
    lines = [
        "| task | measured | slowdown, quartiles | timed again | spread | tau | chosen for luck "
        "| shift | fastest of them |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    print("\n".join(lines), flush=True)
    for name in arguments.tasks.split(","):
        lines.append(row(name, arguments.agent, arguments.seconds, arguments.seed))
        print(lines[-1], flush=True)
    if arguments.table:
        arguments.table.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
