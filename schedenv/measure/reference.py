"""Prepare a task's inputs and expected outputs, in a process of its own.

numpy's BLAS threads and the memory of a large reference must be gone before anything is timed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np

from schedenv import hardware as hw
from schedenv import tvm_adapter
from schedenv.errors import MachineError
from schedenv.measure import verify
from schedenv.tasks import Task, resolve

_TIMEOUT_S = 600.0


def prepare(task: Task, directory: Path, hardware: hw.Hardware, seed: int = 0) -> None:
    """Write the verification data of `task` to `directory`.

    Raises:
        MachineError: The reference cannot be computed.
    """
    request = {"spec": task.spec, "directory": str(directory), "seed": seed}
    environment = {
        **os.environ,
        **hw.kernel_environment(hardware),
        "OPENBLAS_NUM_THREADS": str(hardware.cores),
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "schedenv.measure.reference", json.dumps(request)],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise MachineError(
            f"the reference of {task.name} took longer than {_TIMEOUT_S:.0f} s; "
            "choose a smaller shape"
        ) from None
    if done.returncode != 0:
        lines = [line for line in done.stderr.splitlines() if line.strip()]
        raise MachineError(
            f"the reference of {task.name} cannot be computed "
            f"(exit code {done.returncode}): {lines[-1] if lines else 'no message'}"
        )


def compute(task: Task, inputs: list[verify.Array], target: Any) -> list[verify.Array]:
    """Expected outputs, float64: of the task's own reference, or of the unscheduled program."""
    if task.reference is not None:
        return task.reference([array.astype(np.float64) for array in inputs])
    import tvm

    library = tvm_adapter.build(task.mod, target)
    remaining = iter(inputs)
    tensors = [
        tvm.runtime.tensor(
            np.zeros(argument.shape, argument.dtype) if argument.is_output else next(remaining)
        )
        for argument in task.arguments
    ]
    library["main"](*tensors)
    return [
        tensor.numpy().astype(np.float64)
        for tensor, argument in zip(tensors, task.arguments, strict=True)
        if argument.is_output
    ]


def _main() -> None:
    request = json.loads(sys.argv[1])
    task = resolve(request["spec"])
    inputs_of = [argument for argument in task.arguments if not argument.is_output]
    sets = []
    for number in range(verify.INPUT_SETS):
        inputs = verify.random_inputs(
            [argument.shape for argument in inputs_of],
            [argument.dtype for argument in inputs_of],
            request["seed"] * verify.INPUT_SETS + number,
        )
        sets.append((inputs, compute(task, inputs, hw.target(hw.detect()))))
    dtype = next(argument.dtype for argument in task.arguments if argument.is_output)
    tolerated = verify.tolerance(dtype, task.reduction_length)
    verify.VerificationData.write(Path(request["directory"]), tolerated, sets)


if __name__ == "__main__":
    _main()
    os._exit(0)
