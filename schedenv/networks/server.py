"""A network in a process of its own: `python -m schedenv.networks.server REQUEST`.

Runs the prepared inputs, writes the outputs, prints `ready`; then reads two numbers a line, of
calls and of calls before them that are not counted, and prints seconds a call, until standard input
ends.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from schedenv.measure.placement import Placement
from schedenv.measure.verify import Array


def tvm_runner(path: Path, inputs: Sequence[Array]) -> Callable[[], object]:
    """A call of a compiled network on fixed inputs."""
    import tvm

    from schedenv import tvm_relax

    main = tvm_relax.load_network(path)["main"]
    tensors = [tvm.runtime.tensor(array) for array in inputs]
    return lambda: main(*tensors)


def onnxruntime_runner(
    path: Path, names: Sequence[str], inputs: Sequence[Array], threads: int
) -> Callable[[], object]:
    """A call of ONNX Runtime on fixed inputs, bound once."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    binding = session.io_binding()
    for name, array in zip(names, inputs, strict=True):
        binding.bind_cpu_input(name, array)
    for output in session.get_outputs():
        binding.bind_output(output.name)

    def run() -> object:
        session.run_with_iobinding(binding)
        return binding.copy_outputs_to_cpu()

    return run


def torch_runner(path: Path, inputs: Sequence[Array], threads: int) -> Callable[[], object]:
    """A call of a program that `torch.export.save` wrote, on fixed inputs."""
    import torch
    from torch.utils import _pytree as pytree

    torch.set_num_threads(threads)
    program = torch.export.load(str(path))
    module = program.module()
    tensors = [torch.from_numpy(array) for array in inputs]
    positional, named = pytree.tree_unflatten(tensors, program.call_spec.in_spec)

    def run() -> object:
        with torch.inference_mode():
            return pytree.tree_leaves(module(*positional, **named))

    return run


def as_arrays(outputs: object) -> list[Array]:
    """What a runner returned, as arrays."""
    parts = [outputs] if hasattr(outputs, "numpy") else list(outputs)  # type: ignore[call-overload]
    return [part.numpy() if hasattr(part, "numpy") else np.asarray(part) for part in parts]


def main() -> None:
    """Serve."""
    request = json.loads(sys.argv[1])
    data_dir, path = Path(request["data_dir"]), Path(request["path"])
    names = json.loads((data_dir / "names.json").read_text())
    runner: Callable[[], object] | None = None
    for file in sorted(data_dir.glob("inputs-*.npz")):
        arrays = np.load(file)
        inputs = [arrays[f"arr_{index}"] for index in range(len(names))]
        if request["kind"] == "tvm":
            runner = tvm_runner(path, inputs)
        elif request["kind"] == "torch":
            runner = torch_runner(path, inputs, request["threads"])
        else:
            runner = onnxruntime_runner(path, names, inputs, request["threads"])
        number = file.stem.removeprefix("inputs-")
        np.savez(data_dir / f"{request['outputs']}-{number}.npz", *as_arrays(runner()))
    assert runner is not None
    if request["kind"] == "tvm":
        Placement().beside_pool()
    print("ready", flush=True)
    for line in sys.stdin:
        calls, warm_up = map(int, line.split())
        for _ in range(warm_up):
            runner()
        start = time.perf_counter()
        for _ in range(calls):
            runner()
        print((time.perf_counter() - start) / calls, flush=True)


if __name__ == "__main__":
    main()
    os._exit(0)
