"""By what should a candidate's samples be divided when the incumbent is slower than it was?

    python runs/drift.py --table runs/drift.md

One measurer holds the fastest of some random candidates, another one holds all of them. Each is
timed again and again right after the fastest. A part p means dividing by slowdown ** p: 0 corrects
nothing, 1 believes that both slow down alike; the last column is what the engine does
(`schedenv.measure.drift`). The table shows the spread of each candidate's estimates, the standard
deviation of their logarithm.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from schedenv import hardware as hw
from schedenv.measure.drift import Drift
from schedenv.measure.local import LocalMeasurer
from schedenv.measure.result import robust_estimate
from schedenv.space import Space
from schedenv.tasks import resolve

TASKS = ("gmm:1x512x512x512", "ansor/c2d-1", "ansor/dep-1", "ansor/sfm-0")
PARTS = (0.0, 0.25, 0.5, 0.75, 1.0)
CANDIDATES = 20
INCUMBENT_SAMPLES, SAMPLES = 8, 3


def spreads(name: str, seconds: float) -> tuple[int, list[float]]:
    """How often each candidate was timed, and the spread for each of `PARTS`."""
    task, hardware = resolve(name), hw.detect()
    space = Space(task.mod, hardware)
    rng = np.random.default_rng(0)
    points = [space.sample(rng) for _ in range(CANDIDATES)]
    with (
        LocalMeasurer(task, hardware, workers=1) as one,
        LocalMeasurer(task, hardware, workers=1) as other,
    ):
        candidates = [loaded for loaded in other.load(points) if loaded.result.ok]
        candidates.sort(key=lambda loaded: loaded.result.estimate_s or 0.0)
        (incumbent,) = one.load([candidates[0].result.point])
        rivals = candidates[1:]
        pairs: list[list[tuple[float, float]]] = [[] for _ in rivals]
        end_s = time.monotonic() + seconds
        while time.monotonic() < end_s:
            for rival, seen in zip(rivals, pairs, strict=True):
                beside_s = robust_estimate([incumbent.sample_s() for _ in range(INCUMBENT_SAMPLES)])
                seen.append((robust_estimate([rival.sample_s() for _ in range(SAMPLES)]), beside_s))
    logs = np.log(np.array([seen[: len(pairs[-1])] for seen in pairs]))
    times, slowdowns = logs[..., 0], logs[..., 1] - logs[..., 1].mean()
    drift = Drift()
    # Candidates took turns, so the moments follow each other column by column.
    followed = np.log([drift.follow(slowdown) for slowdown in np.exp(slowdowns.T.ravel())])
    corrections = [part * slowdowns for part in PARTS] + [followed.reshape(times.T.shape).T]
    return times.shape[1], [_spread(times - correction) for correction in corrections]


def _spread(logs: npt.NDArray[np.float64]) -> float:
    """Standard deviation around each candidate's own mean."""
    return float(np.std(logs - logs.mean(axis=1, keepdims=True)))


def table(tasks: Sequence[str], seconds: float) -> list[str]:
    """The lines of the table, printed as they come."""
    lines = [
        "| task | times each | " + " | ".join(f"part {part:g}" for part in PARTS) + " | engine |",
        "|---|---|" + "---|" * (len(PARTS) + 1),
    ]
    print("\n".join(lines), flush=True)
    for name in tasks:
        count, found = spreads(name, seconds)
        lines.append(f"| {name} | {count} | " + " | ".join(f"{s:.3f}" for s in found) + " |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Print, or write, the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--seconds", type=float, default=40.0, help="a task")
    parser.add_argument("--table", type=Path, help="write the table here as well")
    arguments = parser.parse_args()
    lines = table(arguments.tasks, arguments.seconds)
    if arguments.table:
        arguments.table.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
