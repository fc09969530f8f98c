"""What it gains that LLVM can align the stack of a kernel's parallel loops.

    python runs/stack_alignment.py [--tasks core/cbr-3,...] [--seconds 15] [--kernels 3]
        [--processes 8] [--table FILE.md]

A short search finds good schedules. In each of some fresh processes the fastest few are compiled
twice, without and with the attributes that `schedenv.tvm_adapter.with_attributes` gives, and timed
in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from compile_cost import tensors_of
from processes import search

from schedenv import hardware as hw
from schedenv import tvm_adapter
from schedenv.measure.placement import Placement
from schedenv.measure.result import robust_estimate
from schedenv.space import Point, Space
from schedenv.tasks import resolve

TASKS = "core/cbr-3,core/t2d-0,core/dep-2,core/gmm-2"
ROUNDS, CALLS_S = 40, 2e-3


def compile_both(name: str, points: list[str], hardware: hw.Hardware) -> list[Any]:
    """Each point's kernel without and with attributes."""
    import tvm
    from tvm import tirx

    space, target = Space(resolve(name).mod, hardware), hw.target(hardware)
    compile_plainly = tvm.get_global_func("target.build.llvm")
    kernels = []
    for text in points:
        lowered = tvm_adapter.lower(space.apply(Point.parse(text)).mod, target)
        kernels.append(compile_plainly(tirx.transform.SkipAssert()(lowered), target)["main"])
        kernels.append(tvm_adapter.generate_code(lowered, target)["main"])
    return kernels


def time_here(name: str, points: list[str]) -> list[float]:
    """Seconds a call of each kernel of `compile_both`, in turn, in this process."""
    kernels = compile_both(name, points, hw.detect())
    tensors = tensors_of(resolve(name).mod)
    placement = Placement()
    kernels[0](*tensors)
    placement.beside_pool()
    samples: list[list[float]] = [[] for _ in kernels]
    rng = np.random.default_rng()
    for _ in range(ROUNDS):
        for index in rng.permutation(len(kernels)):
            kernel = kernels[index]
            kernel(*tensors)
            start = time.perf_counter()
            kernel(*tensors)
            calls = 1 + int(CALLS_S / (time.perf_counter() - start))
            start = time.perf_counter()
            for _ in range(calls):
                kernel(*tensors)
            samples[index].append((time.perf_counter() - start) / calls)
    return [robust_estimate(taken) for taken in samples]


def time_apart(name: str, points: list[str], hardware: hw.Hardware) -> list[float]:
    """The same in a process of its own."""
    done = subprocess.run(
        [sys.executable, __file__, "--tasks", name, "--points", *points],
        env={**os.environ, **hw.kernel_environment(hardware)},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    times: list[float] = json.loads(done.stdout)
    return times


def main() -> None:
    """Run the experiment and print, or write, a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", default=TASKS, help="TASKs, by commas")
    parser.add_argument("--seconds", type=float, default=15.0, help="of each search")
    parser.add_argument("--kernels", type=int, default=3, help="of each task")
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--points", nargs="*", help="time these here, and print JSON")
    parser.add_argument("--table", type=Path)
    arguments = parser.parse_args()
    if arguments.points:
        print(json.dumps(time_here(arguments.tasks, arguments.points)))
        return
    hardware = hw.detect()
    lines = [
        f"{arguments.processes} processes, {hardware.fingerprint}, {hardware.cores} threads. Times "
        "in microseconds a call.",
        "",
        "| schedule | without: fastest to slowest process | with | without over with "
        "(geometric mean) | lowest and highest |",
        "|---|---:|---:|---:|---:|",
    ]
    print("\n".join(lines), flush=True)
    for name in arguments.tasks.split(","):
        points = search(resolve(name), arguments.seconds, arguments.kernels, hardware)
        texts = [str(point) for point in points]
        times = np.array(
            [time_apart(name, texts, hardware) for _ in range(arguments.processes)]
        ).reshape(arguments.processes, len(texts), 2)
        for index, text in enumerate(texts):
            plain, aligned = times[:, index, 0] * 1e6, times[:, index, 1] * 1e6
            ratios = plain / aligned
            lines.append(
                f"| {name} `{text}` | {plain.min():.1f} to {plain.max():.1f} "
                f"| {aligned.min():.1f} to {aligned.max():.1f} "
                f"| {np.exp(np.log(ratios).mean()):.2f} "
                f"| {ratios.min():.2f} to {ratios.max():.2f} |"
            )
            print(lines[-1], flush=True)
    if arguments.table:
        title = ["# What it gains that LLVM can align the stack", ""]
        preface = ["Made by `python runs/stack_alignment.py`.", ""]
        arguments.table.write_text("\n".join([*title, *preface, *lines]) + "\n")


if __name__ == "__main__":
    main()
