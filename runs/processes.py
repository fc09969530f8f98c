"""How far one schedule's time differs between processes, and within one.

    python runs/processes.py [--tasks core/t2d-0,...] [--seconds 20] [--kernels 3]
        [--processes 8] [--table FILE.md]

A short search finds good schedules. The fastest few by its estimates are then timed in turn, in
one fresh process after the other, and in each of them twice, one time after the other. What the two
times of a process differ by is what an interval of one process's samples speaks of; what processes
differ by is the rest.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt

from schedenv import hardware as hw
from schedenv.comparison.arenas import LiveArena
from schedenv.comparison.contestant import contestant
from schedenv.measure.local import LocalMeasurer
from schedenv.measure.result import robust_estimate
from schedenv.space import Point
from schedenv.tasks import Task, resolve
from schedenv.tuning.budget import Budget
from schedenv.tuning.finalists import interleave

TASKS = "core/t2d-0,core/grp-3,core/cbr-3,core/dep-2,core/gmm-2,core/sfm-1"
ROUNDS, BUDGET_S = 20, 1.0


def search(task: Task, seconds: float, count: int, hardware: hw.Hardware) -> list[Point]:
    """The finalists of a short search."""
    with tempfile.TemporaryDirectory() as out:
        arena = LiveArena([contestant("greedy-prior")], [task], hardware, Path(out))
        attempt = arena.attempt(task.name, "greedy-prior", 0, Budget(seconds=seconds))
    return [Point.parse(text) for text in attempt.finalists[:count]]


def time_all(
    task: Task, points: list[Point], processes: int, hardware: hw.Hardware
) -> npt.NDArray[np.float64]:
    """Seconds a call, shape (processes, 2, points)."""
    times = []
    with LocalMeasurer(task, hardware, workers=1) as measurer:
        for number in range(processes):
            measurer.renew()
            kernels = measurer.load(points)
            budget_s = BUDGET_S * len(points)
            times.append(
                [
                    [
                        robust_estimate(samples)
                        for _, samples in interleave(
                            kernels, ROUNDS, budget_s, 2 * number + turn, measurer.slowdown
                        )
                    ]
                    for turn in range(2)
                ]
            )
    return np.array(times)


def main() -> None:
    """Run the experiment and print, or write, a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default=TASKS, help="TASKs, by commas")
    parser.add_argument("--seconds", type=float, default=20.0, help="of each search")
    parser.add_argument("--kernels", type=int, default=3, help="of each task")
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--table", type=Path)
    arguments = parser.parse_args()
    hardware = hw.detect()
    lines = [
        f"{arguments.processes} processes, {hardware.fingerprint}, {hardware.cores} threads.",
        "",
        "| schedule | us a call in each process | slowest over fastest process "
        "| spread between processes | spread within a process |",
        "|---|---|---:|---:|---:|",
    ]
    print("\n".join(lines), flush=True)
    for name in arguments.tasks.split(","):
        task = resolve(name)
        points = search(task, arguments.seconds, arguments.kernels, hardware)
        times = time_all(task, points, arguments.processes, hardware)
        for index, point in enumerate(points):
            logs = np.log(times[:, :, index])
            between = logs.mean(axis=1)
            within = np.abs(logs[:, 1] - logs[:, 0]) / np.sqrt(2)
            each = ", ".join(f"{np.exp(log) * 1e6:.1f}" for log in between)
            lines.append(
                f"| {task.name} `{point}` | {each} | {np.exp(np.ptp(between)):.2f} "
                f"| {between.std(ddof=1):.1%} | {np.sqrt(np.mean(within**2)):.1%} |"
            )
            print(lines[-1], flush=True)
    if arguments.table:
        title = ["# How far one schedule's time differs between processes", ""]
        preface = [
            "Made by `python runs/processes.py`. The spreads are standard deviations of the "
            "logarithms of what",
            "20 samples in turn say: of processes, and of a second time in the same process.",
            "",
        ]
        arguments.table.write_text("\n".join([*title, *preface, *lines]) + "\n")


if __name__ == "__main__":
    main()
