"""Prepare a task's inputs and expected outputs, in a process of its own.

numpy's BLAS threads and the memory of a large reference must be gone before anything is timed.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from schedenv import hardware as hw
from schedenv import tvm_adapter
from schedenv.errors import MachineError
from schedenv.measure import verify
from schedenv.tasks import Reference, Task, resolve

_TIMEOUT_S = 600.0


def prepare(task: Task, directory: Path, hardware: hw.Hardware, seed: int = 0) -> None:
    """Write the verification data of `task` to `directory`.

    Raises:
        MachineError: The reference cannot be computed.
    """
    failure = prepare_all([(task, directory)], hardware, seed)[0]
    if failure is not None:
        raise MachineError(f"the reference of {task.name} cannot be computed {failure}")


def prepare_all(
    wanted: Sequence[tuple[Task, Path]], hardware: hw.Hardware, seed: int = 0
) -> list[str | None]:
    """Write the verification data of several tasks, each to its directory, in one process.

    Returns:
        For each task None, or why its reference cannot be computed.

    Raises:
        MachineError: They are not all computed within the time for one.
    """
    request = {
        "seed": seed,
        "tasks": [{"spec": task.spec, "directory": str(directory)} for task, directory in wanted],
    }
    environment = {
        **os.environ,
        **hw.kernel_environment(hardware),
        "OPENBLAS_NUM_THREADS": str(hardware.cores),
    }
    try:
        done = subprocess.run(
            [sys.executable, "-m", "schedenv.measure.reference"],
            env=environment,
            input=json.dumps(request),
            capture_output=True,
            text=True,
            timeout=_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        names = ", ".join(task.name for task, _ in wanted)
        raise MachineError(
            f"the reference of {names} took longer than {_TIMEOUT_S:.0f} s; choose a smaller shape"
        ) from None
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    failure = f"(exit code {done.returncode}): {lines[-1] if lines else 'no message'}"
    return [
        None if verify.VerificationData.is_complete(directory) else failure
        for _, directory in wanted
    ]


def reference_of(task: Task, target: Any) -> Reference:
    """The task's own reference, or its unscheduled program, compiled once for all inputs."""
    if task.reference is not None:
        own = task.reference
        return lambda inputs: own([array.astype(np.float64) for array in inputs])
    import tvm

    library = tvm_adapter.build(task.mod, target)

    def run(inputs: Sequence[verify.Array]) -> list[verify.Array]:
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

    return run


def _main() -> None:
    request = json.load(sys.stdin)
    failed = 0
    for wanted in request["tasks"]:
        # One task whose reference fails must not cost the others theirs.
        try:
            _write(wanted["spec"], Path(wanted["directory"]), request["seed"])
        except Exception as error:
            failed = 1
            print(f"{type(error).__name__}: {tvm_adapter.first_line(error)}", file=sys.stderr)
    sys.stderr.flush()
    os._exit(failed)


def _write(spec: str, directory: Path, seed: int) -> None:
    task = resolve(spec)
    inputs_of = [argument for argument in task.arguments if not argument.is_output]
    reference = reference_of(task, hw.target(hw.detect()))
    sets = []
    for number in range(verify.INPUT_SETS):
        inputs = verify.random_inputs(
            [argument.shape for argument in inputs_of],
            [argument.dtype for argument in inputs_of],
            seed * verify.INPUT_SETS + number,
        )
        sets.append((inputs, reference(inputs)))
    dtype = next(argument.dtype for argument in task.arguments if argument.is_output)
    tolerated = verify.tolerance(dtype, task.reduction_length)
    verify.VerificationData.write(directory, tolerated, sets)


if __name__ == "__main__":
    _main()
