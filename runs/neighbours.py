"""What a neighbour on the machine does to kernels of one task, and whether it can be seen.

    python runs/neighbours.py [--task core/gmm-0] [--candidates 64] [--kernels 6]
        [--samples 40] [--minutes 10] [--table FILE.md]

Random candidates are measured, and the fastest few timed in turn, each sample between two timings
of the reference kernel. A sample is calm if the reference kernel was slowed down by less than
`timing.CALM` both times, disturbed if by more both times; the rest tells nothing. It ends when
every kernel has so many samples of both kinds, or after so many minutes: on a machine that is
quiet, or never is, one kind is missing.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from schedenv import hardware as hw
from schedenv.measure.local import Loaded, LocalMeasurer
from schedenv.measure.timing import CALM
from schedenv.space import Space
from schedenv.tasks import resolve
from schedenv.tuning.finalists import best_candidates

STATES = ("calm", "disturbed")


def collect(
    measurer: LocalMeasurer, kernels: Sequence[Loaded], samples: int, seconds: float
) -> tuple[list[dict[str, list[float]]], list[float]]:
    """Each kernel's samples by state, seconds a call, and all slowdowns."""
    taken: list[dict[str, list[float]]] = [{state: [] for state in STATES} for _ in kernels]
    slowdowns: list[float] = []
    rng = np.random.default_rng(0)
    end = time.monotonic() + seconds
    while time.monotonic() < end and min(len(s) for one in taken for s in one.values()) < samples:
        for index in rng.permutation(len(kernels)):
            before = measurer.slowdown()
            sample_s = kernels[index].sample_s()
            after = measurer.slowdown()
            assert before is not None
            assert after is not None
            slowdowns += [before, after]
            if max(before, after) < CALM:
                taken[index]["calm"].append(sample_s)
            elif min(before, after) >= CALM:
                taken[index]["disturbed"].append(sample_s)
    return taken, slowdowns


def cell(samples_s: Sequence[float]) -> str:
    """Median and quartiles, microseconds."""
    if not samples_s:
        return "-"
    low, middle, high = np.quantile(samples_s, (0.25, 0.5, 0.75)) * 1e6
    return f"{middle:.1f} ({low:.1f} to {high:.1f}), {len(samples_s)}"


def main() -> None:
    """Run the experiment and print, or write, a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="core/gmm-0")
    parser.add_argument("--candidates", type=int, default=64)
    parser.add_argument("--kernels", type=int, default=6)
    parser.add_argument("--samples", type=int, default=40)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--table", type=Path)
    arguments = parser.parse_args()
    hardware, task = hw.detect(), resolve(arguments.task)
    space, rng = Space(task.mod, hardware), np.random.default_rng(0)
    with LocalMeasurer(task, hardware) as measurer:
        results = measurer.measure([space.sample(rng) for _ in range(arguments.candidates)])
    with LocalMeasurer(task, hardware, workers=1) as measurer:
        kernels = measurer.load(best_candidates(results, arguments.kernels))
        kernels = [kernel for kernel in kernels if kernel.result.ok]
        taken, slowdowns = collect(measurer, kernels, arguments.samples, 60 * arguments.minutes)
    quartiles = " to ".join(f"{q:.2f}" for q in np.quantile(slowdowns, (0.25, 0.75)))
    lines = [
        f"{task.name}, {hardware.fingerprint}, {hardware.cores} threads. Slowdown of the reference "
        f"kernel, quartiles: {quartiles}; below {CALM} in {np.mean(np.less(slowdowns, CALM)):.0%} "
        f"of {len(slowdowns)} moments.",
        "",
        "| kernel | calm: us a call, samples | disturbed: us a call, samples | slowed down by |",
        "|---|---|---|---:|",
    ]
    for kernel, samples in zip(kernels, taken, strict=True):
        calm, disturbed = (samples[state] for state in STATES)
        ratio = f"{np.median(disturbed) / np.median(calm):.2f}" if calm and disturbed else "-"
        lines.append(f"| `{kernel.result.point}` | {cell(calm)} | {cell(disturbed)} | {ratio} |")
    print("\n".join(lines))
    if arguments.table:
        title = ["# What a neighbour does to kernels of one task", ""]
        preface = ["Made by `python runs/neighbours.py`, which says what calm means.", ""]
        arguments.table.write_text("\n".join([*title, *preface, *lines]) + "\n")


if __name__ == "__main__":
    main()
