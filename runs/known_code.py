"""What it costs to find out that a neighbour's code is known, with lowering by halves and without.

    python runs/known_code.py --table runs/known_code.md

A neighbour of a schedule may have its code, or that of one measured before. Here all neighbours of
a few random points that fit the registers are lowered one after the other: by halves
(`schedenv.tvm_lowering.Lowering`: the second only if what comes out of the first is new) and whole,
in turn. Compiling and applying are left out: they are the same either way. A descent meets known
code more often than this, for it takes neighbours of neighbours.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from schedenv import hardware as hw
from schedenv import tvm_adapter, tvm_lowering
from schedenv.errors import ConstraintError
from schedenv.space import Space
from schedenv.space.draft import Drafter
from schedenv.tasks import Task, resolve_many

TASKS = "core/t2d-0,core/sfm-1,core/gmm-2,core/c1d-2"


def row(task: Task, hardware: hw.Hardware, centres: int) -> str:
    """A task's line of the table."""
    space, target = Space(task.mod, hardware), hw.target(hardware)
    drafter, rng = Drafter(space), np.random.default_rng(0)
    codes: dict[str, str] = {}
    whole_s = halves_s = 0.0
    number = 0
    programs: set[str] = set()
    for _ in range(centres):
        for point in space.neighbours(drafter.sample(rng)):
            try:
                mod = space.apply(point).mod
            except ConstraintError:
                continue
            number += 1
            programs.add(tvm_adapter.structural_hash(mod))
            start_s = time.perf_counter()
            whole = tvm_lowering.code_hash(tvm_adapter.lower(mod, target))
            whole_s += time.perf_counter() - start_s
            start_s = time.perf_counter()
            lowering = tvm_lowering.Lowering(mod, target)
            if lowering.outline not in codes:
                codes[lowering.outline] = tvm_lowering.code_hash(lowering.finished)
            halves_s += time.perf_counter() - start_s
            if codes[lowering.outline] != whole:
                raise AssertionError(f"{task.name} {point}: equal outlines, different code")
    return (
        f"| {task.name} | {number} | {len(programs)} | {len(codes)} | {len(set(codes.values()))} "
        f"| {1e3 * whole_s / number:.1f} | {1e3 * halves_s / number:.1f} "
        f"| {whole_s / halves_s:.2f} |"
    )


def main() -> None:
    """Lower neighbours, and print or write a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default=TASKS, help="suites and TASKs, by commas")
    parser.add_argument("--centres", type=int, default=2, help="points whose neighbours are taken")
    parser.add_argument("--table", type=Path, help="write the table here as well")
    arguments = parser.parse_args()
    hardware = hw.detect()
    lines = [
        "| task | points | programs | outlines | codes | whole, ms each | by halves, ms each "
        "| ratio |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    print("\n".join(lines), flush=True)
    for spec in arguments.tasks.split(","):
        for task in resolve_many(spec):
            lines.append(row(task, hardware, arguments.centres))
            print(lines[-1], flush=True)
    if arguments.table:
        title = "# Finding out that a neighbour's code is known"
        made = (
            "Made by `python runs/known_code.py --table runs/known_code.md`, which says what this "
            f"is; neighbours of {arguments.centres} points a task; {hardware.fingerprint}."
        )
        arguments.table.write_text("\n".join([title, "", made, "", *lines]) + "\n")


if __name__ == "__main__":
    main()
