"""How long candidates take to compile, and whether the ones that take long are ever good.

    schedenv compare --suite core --agents random,greedy,... --seeds 1 --seconds 20 --out RACE
    python runs/build_times.py RACE [--to runs/build_times.md]

Of all candidates of a live race, task by task: seconds from the point to machine code, median, 90th
percentile and most; how many were given up at the deadline; what the ten fastest kernels took; and
how fast the fastest kernel is that took more than a second, or more than eight times the median,
as a share of the fastest kernel's speed.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from schedenv import hardware as hw
from schedenv.measure import Result, Status
from schedenv.records import RecordStore

BEST = 10
LONG_S = 1.0
FACTOR = 8.0


def results(race: Path) -> dict[str, list[Result]]:
    """All results of a race, by task."""
    found: dict[str, list[Result]] = {}
    fingerprint = hw.detect().fingerprint
    for file in sorted(race.glob("attempts/*/*/*/records.sqlite")):
        with RecordStore(file, fingerprint) as store:
            for record in store.records():
                found.setdefault(record.task_name, []).append(record.result)
    return found


def built_s(result: Result) -> float:
    """Seconds from the point to machine code."""
    phases = result.phases
    return phases.apply_s + phases.build_s + phases.jit_s


def row(task: str, made: Sequence[Result]) -> str:
    """A task's line of the table."""
    good = sorted((r for r in made if r.estimate_s is not None), key=lambda r: r.estimate_s or 0.0)
    times_s = [built_s(result) for result in good]
    median_s = statistics.median(times_s)
    late = sum(result.status is Status.BUILD_TIMEOUT for result in made)
    best_s = max(built_s(result) for result in good[:BEST])
    return (
        f"| {task} | {len(made)} | {median_s:.2f} | {np.quantile(times_s, 0.9):.2f} "
        f"| {max(times_s):.2f} | {late} | {best_s:.2f} ({best_s / median_s:.1f}) "
        f"| {share(good, (r for r in good if built_s(r) > LONG_S))} "
        f"| {share(good, (r for r in good if built_s(r) > FACTOR * median_s))} |"
    )


def share(ranked: Sequence[Result], some: Iterable[Result]) -> str:
    """The speed of the fastest of some kernels, as a share of the fastest of all's."""
    fastest_s = min((result.estimate_s or 0.0 for result in some), default=None)
    return "none" if fastest_s is None else f"{(ranked[0].estimate_s or 0.0) / fastest_s:.2f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("race", type=Path, help="the --out of a live race")
    parser.add_argument("--to", type=Path, default=None, help="where to write the table")
    arguments = parser.parse_args()
    heading = [
        "| task | candidates | median, s | 90 % | most | given up "
        f"| most of the best {BEST} (of the median) | best above {LONG_S:g} s "
        f"| best above {FACTOR:g} medians |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
    ]
    rows = [row(task, made) for task, made in results(arguments.race).items()]
    text = "\n".join([*heading, *rows]) + "\n"
    print(text, end="")
    if arguments.to is not None:
        arguments.to.write_text(text)


if __name__ == "__main__":
    main()
