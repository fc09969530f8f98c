"""Tune a matrix product and time it against ONNX Runtime, interleaved, at equal threads.

    python runs/vendor_matmul.py [--task gmm:1x512x512x512] [--seconds 60] [--seed 0]

Each library runs in its own process; samples alternate in random order, with a pause between
them, because ONNX Runtime's threads spin for a while after a call. A sample is the mean over a
burst of some 20 ms, after a burst of as many calls that are not counted. The ratio is that of the
lower quartiles of all samples, with a paired bootstrap interval over the rounds.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from schedenv import hardware as hw
from schedenv.calibration import peaks
from schedenv.errors import MissingExtraError
from schedenv.measure import robust_estimate
from schedenv.measure.local import LocalMeasurer
from schedenv.tasks import resolve
from schedenv.tuning.finalists import paired_ratio
from schedenv.tuning.tune import Request, best_point, tune

ROUNDS = 80
PAUSE_S = 0.05
BURST_S = 0.02


def ort_process(shape: str, threads: int) -> subprocess.Popen[str]:
    """Start the server and wait until it has warmed up."""
    server = Path(__file__).with_name("ort_server.py")
    process = subprocess.Popen(
        [sys.executable, str(server), *shape.split("x"), str(threads)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ,
    )
    assert process.stdout is not None
    assert process.stdout.readline().strip() == "ready"
    return process


def ort_sample(process: subprocess.Popen[str], calls: int) -> float:
    """Seconds a call, mean of `calls`."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{calls}\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--task", default="gmm:1x512x512x512")
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=None)
    arguments = parser.parse_args()
    out = arguments.out or Path("out") / f"vendor-{int(time.time())}"
    if importlib.util.find_spec("onnxruntime") is None:
        raise MissingExtraError("onnxruntime", "vendor", "the comparison")
    task, hardware = resolve(arguments.task), hw.detect()
    machine = peaks(hardware)
    if not (out / "best.json").exists():
        tune(Request(task, "greedy", None, arguments.seconds, arguments.seed, out), machine)
    point = best_point(out)
    assert point is not None, "nothing beat the untuned program"

    samples: dict[str, list[float]] = {"schedenv": [], "onnxruntime": []}
    vendor = ort_process(task.spec.split(":")[1], hardware.cores)
    rng = np.random.default_rng(0)
    with LocalMeasurer(task, hardware, workers=1, seed=1) as measurer:
        (kernel,) = measurer.load([point])
        calls = max(1, round(BURST_S / (kernel.result.estimate_s or 1.0)))
        for _ in range(ROUNDS):
            for name in rng.permutation(list(samples)):
                time.sleep(PAUSE_S)
                if name == "schedenv":
                    kernel.sample_s(calls)
                    samples[name].append(kernel.sample_s(calls))
                else:
                    samples[name].append(ort_sample(vendor, calls))
    vendor.terminate()

    low, ratio, high = paired_ratio(samples["onnxruntime"], samples["schedenv"])
    quartile = {name: robust_estimate(values) for name, values in samples.items()}
    report = {
        "task": task.spec,
        "threads": hardware.cores,
        "hardware": hardware.fingerprint,
        "seconds": arguments.seconds,
        "seed": arguments.seed,
        "point": str(point),
        "schedenv_us": quartile["schedenv"] * 1e6,
        "onnxruntime_us": quartile["onnxruntime"] * 1e6,
        "schedenv_gflops_per_s": task.flops / quartile["schedenv"] / 1e9,
        "onnxruntime_gflops_per_s": task.flops / quartile["onnxruntime"] / 1e9,
        "peak_gflops_per_s": machine.flops_per_s / 1e9,
        "speed_relative_to_onnxruntime": {
            "estimate": ratio,
            "low": low,
            "high": high,
        },
        "rounds": ROUNDS,
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
