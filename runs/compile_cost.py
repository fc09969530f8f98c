"""What compiling a candidate costs, phase by phase, and which compiler options lower that.

Random candidates as in `throughput.py`. Every candidate is compiled under every set of options in
turn, in one process, so that noise hits all alike; costs are CPU time. Then its kernels are timed
in turn as well: options are worth something only if the kernels stay as fast. All variants have the
attributes of `schedenv.tvm_adapter.with_attributes`.

    python runs/compile_cost.py --table runs/compile_cost.md
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from throughput import candidates

from schedenv import hardware as hw
from schedenv import tvm_adapter, tvm_lowering
from schedenv.space import Point, Space
from schedenv.tasks import resolve

TASKS = ("gmm:1x512x512x512", "ansor/c2d-1", "ansor/dep-1", "ansor/sfm-0")
HUGE_REGION = "-dag-maps-huge-region:uint=100"
CASTS = "-scalar-evolution-max-cast-depth:uint=2"
VARIANTS: dict[str, tuple[str, ...]] = {
    "stock options": (),
    "as candidates are compiled": tvm_adapter.QUICK_LLVM,
    "dag-maps-huge-region=100": (HUGE_REGION,),
    "scalar-evolution-max-cast-depth=2": (CASTS,),
    "scalar-evolution-max-arith-depth=2": ("-scalar-evolution-max-arith-depth:uint=2",),
}
LONGEST_TIMED_S = 0.05
ROUNDS = 7


def compile_all(
    space: Space, points: Iterable[Point], hardware: hw.Hardware, variants: list[str]
) -> tuple[dict[str, list[float]], dict[str, list[list[float]]], dict[str, list[float]]]:
    """Compile and time every point under every set of options.

    Returns:
        CPU seconds of the phases that options do not change; of optimising and of emitting, by
        options; each kernel's best seconds, by options.
    """
    target = hw.target(hardware)
    targets = {
        name: tvm_adapter.make_target(hardware.mcpu, hardware.cores, VARIANTS[name])
        for name in variants
    }
    fixed: dict[str, list[float]] = {"apply": [], "hash": [], "lower": [], "code hash": []}
    costs: dict[str, list[list[float]]] = {name: [] for name in variants}
    kernels: dict[str, list[float]] = {name: [] for name in variants}
    tensors = tensors_of(space.mod)
    for number, point in enumerate(points):
        clock = [time.process_time()]
        mod = space.apply(point).mod
        clock.append(time.process_time())
        tvm_adapter.structural_hash(mod)
        clock.append(time.process_time())
        lowered = tvm_adapter.lower(mod, target)
        clock.append(time.process_time())
        tvm_lowering.code_hash(lowered)
        clock.append(time.process_time())
        for phase, spent_s in zip(fixed.values(), np.diff(clock), strict=True):
            phase.append(float(spent_s))
        libraries: dict[str, Any] = {}
        shift = number % len(variants)
        for name in variants[shift:] + variants[:shift]:
            start = time.process_time()
            library = tvm_adapter.generate_code(lowered, targets[name])
            optimised = time.process_time()
            libraries[name] = library["main"]
            emitted = time.process_time()
            costs[name].append([optimised - start, emitted - optimised])
        for name, best_s in _time(libraries, tensors).items():
            kernels[name].append(best_s)
    return fixed, costs, kernels


def _time(kernels: dict[str, Any], tensors: list[Any]) -> dict[str, float]:
    """Best seconds of each kernel, called in turn; infinite for those too long to be repeated."""
    best = dict.fromkeys(kernels, float("inf"))
    start = time.perf_counter()
    next(iter(kernels.values()))(*tensors)
    if time.perf_counter() - start > LONGEST_TIMED_S:
        return best
    for _ in range(ROUNDS):
        for name, kernel in kernels.items():
            kernel(*tensors)
            start = time.perf_counter()
            kernel(*tensors)
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def tensors_of(mod: Any) -> list[Any]:
    """Arguments of a program, random."""
    import tvm

    rng = np.random.default_rng(0)
    return [
        tvm.runtime.tensor(rng.uniform(-1, 1, argument.shape).astype(argument.dtype))
        for argument in tvm_adapter.arguments(mod)
    ]


def summary(seconds: Iterable[float]) -> str:
    """Median, 90th percentile and mean in milliseconds."""
    values = 1e3 * np.asarray(list(seconds))
    return f"{np.median(values):.1f} | {np.quantile(values, 0.9):.1f} | {np.mean(values):.1f}"


def table(task: str, count: int, variants: list[str], hardware: hw.Hardware) -> list[str]:
    """The lines of one task."""
    space = Space(resolve(task).mod, hardware)
    fixed, costs, kernels = compile_all(space, candidates(space, count, seed=0), hardware, variants)
    lines = [
        f"## {task}",
        "",
        "| phase | median ms | 90th percentile | mean | kernel time against stock |",
        "|---|---|---|---|---|",
        *(f"| {phase} | {summary(spent)} | |" for phase, spent in fixed.items()),
    ]
    stock = np.asarray(kernels[variants[0]])
    for name in variants:
        both = np.isfinite(stock)
        ratio = np.asarray(kernels[name])[both] / stock[both]
        low, middle, high = (
            np.quantile(ratio, (0.1, 0.5, 0.9)) if both.any() else [float("nan")] * 3
        )
        told = (
            f"{np.exp(np.mean(np.log(ratio))):.3f} (10 to 90 %: {low:.2f} to {high:.2f}, "
            f"median {middle:.3f}, {len(ratio)} kernels)"
        )
        lines.append(f"| optimise: {name} | {summary(cost[0] for cost in costs[name])} | |")
        lines.append(f"| emit: {name} | {summary(cost[1] for cost in costs[name])} | {told} |")
    return [*lines, ""]


def main() -> None:
    """Run the comparison and print, or write, the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=TASKS)
    parser.add_argument("--candidates", type=int, default=64)
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    parser.add_argument("--table", type=Path, help="write the tables here as well")
    arguments = parser.parse_args()
    hardware = hw.detect()
    os.environ.update(hw.worker_environment(hardware))
    text = [
        f"CPU milliseconds of {arguments.candidates} random candidates a task, "
        f"{hardware.fingerprint}.",
        "",
    ]
    print("\n".join(text))
    for task in arguments.tasks:
        lines = table(task, arguments.candidates, arguments.variants, hardware)
        print("\n".join(lines), flush=True)
        text += lines
    if arguments.table:
        arguments.table.write_text("\n".join(text))


if __name__ == "__main__":
    main()
