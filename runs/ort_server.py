"""ONNX Runtime in a process of its own: reads a number of calls a line, prints seconds a call.

    python runs/ort_server.py B N M K THREADS

computes the batched matrix product (B, N, K) x (B, K, M), the operator `gmm` of schedenv.
"""

from __future__ import annotations

import sys
import time

import numpy as np
import onnxruntime
from onnx import TensorProto, helper


def matmul_session(b: int, n: int, m: int, k: int, threads: int) -> onnxruntime.InferenceSession:
    """A session that computes one batched matrix product with `threads` threads."""

    def value(name: str, shape: list[int]) -> object:
        return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)

    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "y"], ["z"])],
        "matmul",
        [value("x", [b, n, k]), value("y", [b, k, m])],
        [value("z", [b, n, m])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    return onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def main() -> None:
    """Answer until standard input ends."""
    b, n, m, k, threads = map(int, sys.argv[1:])
    session = matmul_session(b, n, m, k, threads)
    rng = np.random.default_rng(0)
    feeds = {
        "x": rng.uniform(-1, 1, (b, n, k)).astype(np.float32),
        "y": rng.uniform(-1, 1, (b, k, m)).astype(np.float32),
    }
    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_cpu_input(name, array)
    binding.bind_output("z")
    for _ in range(20):
        session.run_with_iobinding(binding)
    print("ready", flush=True)
    for line in sys.stdin:
        calls = int(line)
        # Not counted: after a pause the threads have to wake up.
        for _ in range(calls):
            session.run_with_iobinding(binding)
        start = time.perf_counter()
        for _ in range(calls):
            session.run_with_iobinding(binding)
        print((time.perf_counter() - start) / calls, flush=True)


if __name__ == "__main__":
    main()
