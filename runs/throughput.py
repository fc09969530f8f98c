"""Trials a second and ranking quality: MetaSchedule's builder and runner against this engine.

The same random candidates go to MetaSchedule's LocalBuilder and LocalRunner (stock settings, the
same threads) and to a fresh LocalMeasurer, alternating, several times. Then every candidate is
timed carefully, interleaved with all others, and Kendall's tau says how well each engine had ranked
them. Both are asked for all candidates at once. Starting our workers, once a tuning run, is outside
the clock; its processes are spared the import of tensor intrinsics (tens of seconds on this
machine, which would make it look worse than it is).

    python runs/throughput.py --table runs/throughput.md
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from scipy.stats import kendalltau

from schedenv import hardware as hw
from schedenv import tvm_adapter, tvm_tuning
from schedenv.errors import ConstraintError
from schedenv.measure.local import LocalMeasurer
from schedenv.space import Point, Space
from schedenv.tasks import Task, resolve
from schedenv.tuning.finalists import interleave

TASKS = ("gmm:1x512x512x512", "ansor/c2d-1", "ansor/dep-1", "ansor/sfm-0")
CAREFUL_ROUNDS = 30


def candidates(space: Space, count: int, seed: int) -> list[Point]:
    """Random points with programs of their own that TVM accepts."""
    rng = np.random.default_rng(seed)
    found: dict[str, Point] = {}
    while len(found) < count:
        point = space.sample(rng)
        try:
            found.setdefault(tvm_adapter.structural_hash(space.apply(point).mod), point)
        except ConstraintError:
            continue
    return list(found.values())


def ours(task: Task, hardware: hw.Hardware, points: Sequence[Point]) -> tuple[float, list[float]]:
    """Seconds spent and each candidate's estimate; infinite for one that failed."""
    with LocalMeasurer(task, hardware) as measurer:
        measurer.measure([])
        start = time.perf_counter()
        results = measurer.measure(points)
        spent_s = time.perf_counter() - start
    return spent_s, [result.estimate_s or float("inf") for result in results]


def theirs(
    task: Task, space: Space, hardware: hw.Hardware, points: Sequence[Point]
) -> tuple[float, list[float]]:
    """The same, by MetaSchedule. Replaying the traces is inside the clock, as it is in ours."""
    start = time.perf_counter()
    seconds = tvm_tuning.measure(
        task.mod, [space.apply(point).mod for point in points], hw.target(hardware), hardware.cores
    )
    return time.perf_counter() - start, seconds


def careful(task: Task, hardware: hw.Hardware, points: Sequence[Point]) -> list[float]:
    """Each candidate's time, from many rounds over all of them."""
    with LocalMeasurer(task, hardware, workers=1) as measurer:
        kernels = measurer.load(points)
        timed = interleave(kernels, CAREFUL_ROUNDS, 60.0, slowdown=measurer.slowdown)
    return [float(np.median(samples)) if samples else float("inf") for _, samples in timed]


def tau(seconds: Sequence[float], truth: Sequence[float]) -> float:
    """Rank agreement over the candidates that both could time."""
    both = [(a, b) for a, b in zip(seconds, truth, strict=True) if np.isfinite(a + b)]
    return float(kendalltau(*zip(*both, strict=True)).statistic)


def main() -> None:
    """Run the comparison and print, or write, a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--candidates", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--table", type=Path, help="write the table here as well")
    arguments = parser.parse_args()
    hardware = hw.detect()
    os.environ.update(hw.kernel_environment(hardware))
    lines = [
        f"{arguments.candidates} random candidates a task, {arguments.rounds} alternating rounds, "
        f"{hardware.cores} threads, {hardware.fingerprint}. Ranges are over the rounds.",
        "",
        "| task | MetaSchedule, trials/s | this engine, trials/s | ratio (each round) "
        "| tau MetaSchedule | tau this engine |",
        "|---|---|---|---|---|---|",
    ]
    ratios_of_all: list[float] = []
    print("\n".join(lines), flush=True)
    for name in arguments.tasks:
        task = resolve(name)
        space = Space(task.mod, hardware)
        points = candidates(space, arguments.candidates, seed=0)
        rounds = [
            (theirs(task, space, hardware, points), ours(task, hardware, points))
            for _ in range(arguments.rounds)
        ]
        truth = careful(task, hardware, points)
        rates = [(len(points) / a_s, len(points) / b_s) for (a_s, _), (b_s, _) in rounds]
        ratios = [b / a for a, b in rates]
        ratios_of_all += ratios
        taus = [(tau(a, truth), tau(b, truth)) for (_, a), (_, b) in rounds]
        lines.append(
            f"| {name} | {spread([a for a, _ in rates])} | {spread([b for _, b in rates])} "
            f"| {', '.join(f'{ratio:.1f}' for ratio in ratios)} "
            f"| {spread([a for a, _ in taus])} | {spread([b for _, b in taus])} |"
        )
        print(lines[-1], flush=True)
    geometric_mean = float(np.exp(np.mean(np.log(ratios_of_all))))
    lines += ["", f"Geometric mean of all {len(ratios_of_all)} ratios: {geometric_mean:.1f}."]
    print("\n".join(lines[-2:]))
    if arguments.table:
        arguments.table.write_text("\n".join(lines) + "\n")


def spread(values: Sequence[float]) -> str:
    """Median and range."""
    return f"{np.median(values):.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
