"""A/A: the same schedule in both slots of the finalists' comparison, many times.

    python runs/same_schedule.py --runs 10 --table runs/same_schedule.md

The ratio of a thing to itself is 1; how far it is from that is what a comparison of finalists can
be wrong by, and its interval has to say so.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np

from schedenv import hardware as hw
from schedenv.measure.local import LocalMeasurer
from schedenv.space import Space
from schedenv.tasks import resolve
from schedenv.tuning.finalists import BUDGET_S, ROUNDS, interleave, paired_ratio


def main() -> None:
    """Run the comparisons and print, or write, a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--task", default="gmm:1x256x256x256")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--table", type=Path, help="write the table here as well")
    arguments = parser.parse_args()
    hardware = hw.detect()
    task = resolve(arguments.task)
    space = Space(task.mod, hardware)
    rng = np.random.default_rng(0)
    lines = [
        f"{arguments.task}, {hardware.fingerprint}: one schedule in both slots, {ROUNDS} rounds, a "
        "fresh process each time.",
        "",
        "| run | ratio | 95 % interval | within 2 % | interval holds 1 |",
        "|---|---|---|---|---|",
    ]
    print("\n".join(lines), flush=True)
    fine = 0
    for number in range(arguments.runs):
        with LocalMeasurer(task, hardware, workers=1, seed=number) as measurer:
            point = space.sample(rng)
            while not (measured := measurer.measure([point])[0]).ok:
                point = space.sample(rng)
            assert measured.estimate_s is not None
            pair = measurer.load([point, point])
            both = interleave(pair, ROUNDS, BUDGET_S, number, measurer.slowdown)
        low, ratio, high = paired_ratio(both[0][1], both[1][1], seed=number)
        near, honest = abs(ratio - 1) < 0.02, low <= 1 <= high
        fine += near or honest
        lines.append(f"| {number} | {ratio:.3f} | {low:.3f} to {high:.3f} | {near} | {honest} |")
        print(lines[-1], flush=True)
    lines += ["", f"{fine} of {arguments.runs} are within 2 % or have an interval that says so."]
    print("\n".join(lines[-2:]))
    if arguments.table:
        arguments.table.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
