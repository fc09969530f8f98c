"""Would dividing by a reference kernel's slowdown make estimates steadier? Two kernels, one minute.

    python runs/drift.py [--seconds 60]

Times a compute-bound and a cache-bound schedule of one matrix product again and again, each sample
followed by calls of the reference kernel that last about as long, and prints the spread of the
estimates (standard deviation of their logarithm) with and without the division.
"""

from __future__ import annotations

import argparse
import json
import os
import time

from schedenv import hardware as hw

# Before numpy and TVM are imported: they read the thread settings once.
os.environ.update(hw.kernel_environment(hw.detect()))

import numpy as np
import tvm

from schedenv import tvm_adapter
from schedenv.calibration import peaks
from schedenv.fma import reference_kernel
from schedenv.space import Point, Space
from schedenv.tasks import resolve

POINTS = {
    "compute-bound": "2:1,1,1,1,2,4,16,4,4,2,1,64,16,32,5,3,3",
    "cache-bound": "0:1,1,1,1,8,4,16,1,1,16,4,8,128,4,1,0,0",
}
SAMPLES = 10


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    seconds = parser.parse_args().seconds
    task, hardware = resolve("gmm:1x512x512x512"), hw.detect()
    undisturbed_s = peaks(hardware).reference_s
    reference = reference_kernel(hardware)
    space, target = Space(task.mod, hardware), hw.target(hardware)
    rng = np.random.default_rng(0)
    tensors = [
        tvm.runtime.tensor(rng.uniform(-1, 1, argument.shape).astype(argument.dtype))
        for argument in task.arguments
    ]
    timers = {
        name: tvm_adapter.build(space.apply(Point.parse(text)).mod, target).time_evaluator(
            "main", tvm.cpu(), number=1, repeat=1
        )
        for name, text in POINTS.items()
    }
    looks: dict[str, list[tuple[float, float]]] = {name: [] for name in timers}
    end_s = time.monotonic() + seconds
    while time.monotonic() < end_s:
        for name, timer in timers.items():
            samples, slowdowns = [], []
            for _ in range(SAMPLES):
                sample_s = timer(*tensors).results[0]
                calls = max(1, round(sample_s / undisturbed_s / 2))
                spent_s = sum(reference.time_s() for _ in range(calls))
                samples.append(sample_s)
                slowdowns.append(spent_s / calls / undisturbed_s)
            looks[name].append(
                (float(np.quantile(samples, 0.25)), float(np.quantile(slowdowns, 0.25)))
            )
        time.sleep(0.2)
    report = {}
    for name, pairs in looks.items():
        raw, slowdown = np.log(np.array(pairs)).T
        corrected = raw - slowdown
        report[name] = {
            "looks": len(pairs),
            "median_us": float(np.exp(np.median(raw)) * 1e6),
            "spread_raw": float(raw.std()),
            "spread_corrected": float(corrected.std()),
            "luckiest_percent_raw": float(np.exp(np.median(raw) - np.quantile(raw, 0.01))),
            "luckiest_percent_corrected": float(
                np.exp(np.median(corrected) - np.quantile(corrected, 0.01))
            ),
        }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
