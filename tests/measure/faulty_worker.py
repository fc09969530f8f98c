"""The real worker, with faults injected: what a candidate does is looked up in a file.

The environment variable FAULTS names a JSON file of point text to fault name; it is read at every
build, so a test changes what happens by writing it.
"""

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from schedenv import tvm_adapter
from schedenv.measure import messages, worker

FOR_EVER_S = 1e6

faults_file = Path(os.environ["FAULTS"])
real_build = tvm_adapter.build
fault_of_job: dict[int, str] = {}
current_fault = ""


class FaultyWorker(worker.Worker):
    def _build(self, request: messages.Build) -> messages.Built:
        global current_fault  # noqa: PLW0603
        current_fault = json.loads(faults_file.read_text()).get(str(request.point), "")
        fault_of_job[request.job] = current_fault
        return super()._build(request)

    def _verify(self, library: Any, job: int) -> tuple[float, float]:
        misbehave("run", fault_of_job[job])
        return super()._verify(library, job)


def build(mod: Any, target: Any) -> Any:
    misbehave("build", current_fault)
    if current_fault == "one term short":
        mod = one_term_short()
    if current_fault == "wants other shapes":
        mod = one_term_short(extent=16)
    return real_build(mod, target)


def misbehave(phase: str, fault: str) -> None:
    """Do what the fault says, if it belongs to this phase."""
    if fault == f"{phase} hangs":
        time.sleep(FOR_EVER_S)
    elif fault == f"{phase} spins":
        while True:
            pass
    elif fault == f"{phase} segfaults":
        ctypes.string_at(0)
    elif fault == f"{phase} aborts":
        print("the last words", file=sys.stderr, flush=True)
        os.abort()
    elif fault == f"{phase} exits":
        os._exit(7)
    elif fault == f"{phase} stops":
        os.kill(os.getpid(), signal.SIGSTOP)
    elif fault == f"{phase} raises":
        raise RuntimeError("\n  no such luck\n  second line")
    elif fault == f"{phase} takes all memory":
        hoard = []
        while True:
            hoard.append(np.empty(1 << 30, np.uint8))
    elif fault == f"{phase} is killed":
        os.kill(os.getpid(), signal.SIGKILL)
    elif fault == f"{phase} is killed once":
        once = faults_file.with_suffix(".once")
        if not once.exists():
            once.touch()
            os.kill(os.getpid(), signal.SIGKILL)
    elif fault == f"{phase} leaves children":
        # One in the worker's process group, one that has left it.
        children = [
            subprocess.Popen(["sleep", "1000"], start_new_session=leaves) for leaves in (0, 1)
        ]
        text = " ".join(str(child.pid) for child in children)
        faults_file.with_suffix(".children").write_text(text)
        time.sleep(FOR_EVER_S)


def one_term_short(extent: int = 32) -> Any:
    """`gmm:1x32x32x32` that forgets the last of its 32 terms."""
    from tvm import te

    x = te.placeholder((1, extent, extent), name="X")
    y = te.placeholder((1, extent, extent), name="Y")
    k = te.reduce_axis((0, extent - 1), name="k")
    z = te.compute(
        (1, extent, extent), lambda b, i, j: te.sum(x[b, i, k] * y[b, k, j], axis=k), name="Z"
    )
    return tvm_adapter.module_from_tensors([x, y, z])


if __name__ == "__main__":
    if "start" in json.loads(faults_file.read_text()):
        with faults_file.with_suffix(".starts").open("a") as starts:
            starts.write("x")
        sys.exit("no licence for this machine")
    tvm_adapter.build = build
    worker.Worker = FaultyWorker  # type: ignore[misc]
    worker.main()
    os._exit(0)
