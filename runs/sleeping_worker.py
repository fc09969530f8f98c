"""A device worker whose candidates all compile to a kernel that sleeps; see fleet_scaling.py."""

from __future__ import annotations

import os
from typing import Any

from schedenv import tvm_adapter
from schedenv.measure import device_worker

SLEEP_US = 100_000

_build = tvm_adapter.build


def build_sleeper(_: Any, target: Any) -> Any:
    """Compile `gmm:1x32x32x32` with a sleep in each run."""
    from tvm import te, tirx

    x = te.placeholder((1, 32, 32), name="X")
    y = te.placeholder((1, 32, 32), name="Y")
    k = te.reduce_axis((0, 32), name="k")
    p = te.compute((1, 32, 32), lambda b, i, j: te.sum(x[b, i, k] * y[b, k, j], axis=k), name="P")
    nap = tirx.call_extern("int32", "usleep", SLEEP_US).astype("float32")
    zero = tirx.const(0.0, "float32")
    z = te.compute(
        (1, 32, 32),
        lambda b, i, j: p[b, i, j] + tirx.if_then_else(tirx.all(i == 0, j == 0), nap, zero),
        name="Z",
    )
    return _build(tvm_adapter.module_from_tensors([x, y, z]), target)


if __name__ == "__main__":
    tvm_adapter.build = build_sleeper
    device_worker.main()
    os._exit(0)
