"""What TVM's elimination of common subexpressions does to the best kernels of finished runs.

    python runs/common_subexpressions.py DIR... [--top 3] [--table FILE.md]

DIR is the --out directory of a finished `schedenv tune`, of an operator or of a network. The best
points of each task are compiled with and without the pass, by LLVM's stock options, and timed in
one process, in turn.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

from schedenv import hardware as hw

# Before numpy and TVM are imported: they read the thread settings once.
os.environ.update(hw.kernel_environment(hw.detect()))

import numpy as np
import tvm

from schedenv import tvm_adapter
from schedenv.measure.buffers import on_pages
from schedenv.measure.placement import Placement
from schedenv.measure.result import Result
from schedenv.measure.timing import calls_per_sample
from schedenv.records import RecordStore
from schedenv.space import UNTUNED, Space
from schedenv.tasks import Task, resolve_many
from schedenv.tuning import run_dir
from schedenv.tuning.finalists import paired_ratio

ROUNDS = 60


def compiled(task: Task, result: Result, hardware: hw.Hardware, *, eliminate: bool) -> object:
    """The kernel of a result as a function."""
    mod = Space(task.mod, hardware).apply(result.point).mod
    target = hw.target(hardware)
    if not eliminate:
        return tvm_adapter.build(mod, target)
    return tvm.compile(mod, target=target).mod


def compare(task: Task, result: Result, hardware: hw.Hardware) -> tuple[float, float, float]:
    """How many times as long the kernel takes with the pass: low, estimate, high."""
    rng = np.random.default_rng(0)
    arrays = [
        rng.uniform(-1, 1, argument.shape).astype(argument.dtype) for argument in task.arguments
    ]
    tensors = [tvm.runtime.from_dlpack(array) for array in on_pages(arrays)]
    assert result.estimate_s is not None
    calls = calls_per_sample(result.estimate_s)
    timers = {
        eliminate: compiled(task, result, hardware, eliminate=eliminate).time_evaluator(  # type: ignore[attr-defined]
            "main", tvm.cpu(), number=calls, repeat=1
        )
        for eliminate in (False, True)
    }
    timers[True](*tensors)
    Placement().beside_pool()
    samples: dict[bool, list[float]] = {False: [], True: []}
    for _ in range(ROUNDS):
        for eliminate in rng.permutation([False, True]):
            samples[bool(eliminate)].append(timers[bool(eliminate)](*tensors).results[0])
    low, ratio, high = paired_ratio(samples[True], samples[False])
    return low, ratio, high


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("directories", type=Path, nargs="+", metavar="DIR")
    parser.add_argument("--top", type=int, default=3, help="points of each task")
    parser.add_argument("--table", type=Path, help="write the table here as well")
    arguments = parser.parse_args()
    hardware = hw.detect()
    lines = ["| task | rank | without, us | with / without | 95 % |", "|---|---:|---:|---:|---|"]
    ratios = []
    for directory in arguments.directories:
        spec = run_dir.read_json(directory / run_dir.RUN)["task"]
        is_network = Path(spec).suffix in {".onnx", ".pt2"}
        with RecordStore(directory / run_dir.RECORDS, hardware.fingerprint) as store:
            for task in resolve_many(f"network:{spec}" if is_network else spec):
                results = [record.result for record in store.records(task.content_hash)]
                timed = [r for r in results if r.estimate_s is not None and r.point != UNTUNED]
                timed.sort(key=lambda result: result.estimate_s or 0.0)
                for rank, result in enumerate(timed[: arguments.top], 1):
                    low, ratio, high = compare(task, result, hardware)
                    ratios.append(ratio)
                    name = task.name.rsplit("/", 1)[-1]
                    lines.append(
                        f"| {name} | {rank} | {(result.estimate_s or 0) * 1e6:.1f} | {ratio:.2f} "
                        f"| {low:.2f} to {high:.2f} |"
                    )
                    print(lines[-1], flush=True)
    logs = np.log(ratios)
    lines += [
        "",
        f"{len(ratios)} kernels: geometric mean {np.exp(logs.mean()):.3f}, from {min(ratios):.2f} "
        f"to {max(ratios):.2f}.",
    ]
    print(lines[-1])
    if arguments.table:
        arguments.table.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
