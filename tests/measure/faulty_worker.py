"""The real worker, with faults injected: what a candidate does is looked up in a file.

The environment variable FAULTS names a JSON file of point text to fault name; it is read at every
build, so a test changes what happens by writing it.
"""

import ctypes
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from schedenv import tvm_adapter
from schedenv.measure import messages, timing, worker

FOR_EVER_S = 1e6
LARGE_S = 10.0

faults_file = Path(os.environ["FAULTS"])
real_generate_code = tvm_adapter.generate_code
fault_of_job: dict[int, str] = {}
current_fault = ""
glitches = 0


class FaultyWorker(worker.Worker):
    def _lower(self, request: messages.Lower | messages.Build) -> messages.Lowered:
        global current_fault  # noqa: PLW0603
        current_fault = json.loads(faults_file.read_text()).get(str(request.point), "")
        fault_of_job[request.job] = current_fault
        misbehave("apply", current_fault)
        answer = super()._lower(request)
        if current_fault.startswith("large"):
            slow = msgspec.structs.replace(answer.phases, build_s=LARGE_S)
            answer = msgspec.structs.replace(answer, phases=slow)
        return answer

    def _build(self, request: messages.Build) -> messages.Built:
        global current_fault  # noqa: PLW0603
        current_fault = fault_of_job.get(request.job, "")
        with faults_file.with_suffix(".compiled").open("a") as compiled:
            compiled.write(f"{request.point}\n")
        return super()._build(request)

    def _verify(self, job: int) -> tuple[float, float]:
        misbehave("run", fault_of_job[job])
        error, call_s = super()._verify(job)
        return error, distorted_s(fault_of_job[job], call_s)

    def _timer(self, job: int) -> timing.Timer:
        fault = fault_of_job[job]
        return timing.Timer(
            lambda: distorted_s(fault, self._call(job, self._tensors[0])),
            lambda number, count: [
                distorted_s(fault, sample_s) for sample_s in self._time(job, number, count)
            ],
            self._reference.time_s,
            self._undisturbed_s,
        )


def distorted_s(fault: str, sample_s: float) -> float:
    """What a clock with the fault says."""
    global glitches  # noqa: PLW0603
    if fault == "the clock stands once":
        glitches += 1
        return 0.0 if glitches <= 2 else sample_s
    clocks = {
        "the clock says NaN": math.nan,
        "the clock says infinity": math.inf,
        "the clock stands": 0.0,
        "the clock runs backwards": -sample_s,
        "faster than light": 1e-15,
    }
    return clocks.get(fault, sample_s)


def generate_code(lowered: Any, target: Any) -> Any:
    misbehave("build", current_fault.removeprefix("large, "))
    if current_fault == "one term short":
        lowered = tvm_adapter.lower(one_term_short(), target)
    return real_generate_code(lowered, target)


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


def one_term_short() -> Any:
    """`gmm:1x32x32x32` that forgets the last of its 32 terms."""
    from tvm import te

    extent = 32

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
    tvm_adapter.generate_code = generate_code
    worker.Worker = FaultyWorker  # type: ignore[misc]
    worker.main()
    os._exit(0)
