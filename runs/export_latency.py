"""Does plain TVM get the same kernel from the exported database? Times both, interleaved.

    python runs/export_latency.py DIR

DIR is the --out directory of a finished `schedenv tune`. The database is exported, queried by
plain TVM, and the module that it answers is compiled with `tvm.compile`; schedenv's own kernel is
the point applied to a fresh schedule. Both are timed in one process, in turn.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from pathlib import Path

from schedenv import hardware as hw

# Before numpy and TVM are imported: they read the thread settings once.
os.environ.update(hw.kernel_environment(hw.detect()))

import numpy as np
import tvm

from schedenv import tvm_adapter, tvm_database
from schedenv.measure import robust_estimate
from schedenv.measure.buffers import on_pages
from schedenv.measure.timing import calls_per_sample
from schedenv.records.export import export_metaschedule
from schedenv.space import Space
from schedenv.tasks import resolve
from schedenv.tuning import run_dir
from schedenv.tuning.finalists import paired_ratio
from schedenv.tuning.tune import best_point

ROUNDS = 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("directory", type=Path)
    directory = parser.parse_args().directory
    best, point = run_dir.read_json(directory / run_dir.BEST), best_point(directory)
    assert point is not None
    task, hardware = resolve(best["task"]), hw.detect()
    target = hw.target(hardware)
    with tempfile.TemporaryDirectory() as scratch:
        database = Path(scratch) / "database"
        latency_s = best["tuned"]["latency_us"] * 1e-6
        export_metaschedule(task, [(point, latency_s)], best["hardware"], database)
        exported = tvm_database.apply_database(task.mod, str(database), target)
        assert exported is not None, "plain TVM did not find the record"
        libraries = {
            "schedenv": tvm_adapter.build(Space(task.mod, hardware).apply(point).mod, target),
            "plain TVM": tvm.compile(exported, target=target).mod,
        }
    rng = np.random.default_rng(0)
    arrays = [
        rng.uniform(-1, 1, argument.shape).astype(argument.dtype) for argument in task.arguments
    ]
    tensors = [tvm.runtime.from_dlpack(array) for array in on_pages(arrays)]
    calls = calls_per_sample(latency_s)
    timers = {
        name: library.time_evaluator("main", tvm.cpu(), number=calls, repeat=1)
        for name, library in libraries.items()
    }
    samples: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(ROUNDS):
        for name in rng.permutation(list(timers)):
            samples[name].append(timers[name](*tensors).results[0])
    low, ratio, high = paired_ratio(samples["plain TVM"], samples["schedenv"])
    report = {
        "task": task.spec,
        "schedenv_us": robust_estimate(samples["schedenv"]) * 1e6,
        "plain_tvm_us": robust_estimate(samples["plain TVM"]) * 1e6,
        "plain_tvm_over_schedenv": {"estimate": ratio, "low": low, "high": high},
    }
    print(json.dumps(report, indent=2))


if __name__ == "__main__":
    main()
