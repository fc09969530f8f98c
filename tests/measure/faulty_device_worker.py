"""The real device worker, with faults injected into what it compiles.

The environment variable FAULTS names a JSON file of point text to fault name; it is read at every
build, so a test changes what happens by writing it.
"""

import json
import os
import sys
from pathlib import Path
from typing import Any

from schedenv import tvm_adapter
from schedenv.measure import device_worker, messages

SLOW_US = 600_000
FOR_EVER_US = 2_000_000_000

faults_file = Path(os.environ["FAULTS"])
real_build = tvm_adapter.build
current_fault = ""


class FaultyDeviceWorker(device_worker.DeviceWorker):
    def _build(self, request: messages.Build) -> messages.Built:
        global current_fault  # noqa: PLW0603
        current_fault = json.loads(faults_file.read_text()).get(str(request.point), "")
        return super()._build(request)


def build(mod: Any, target: Any) -> Any:
    from tvm import tirx

    if current_fault == "build raises":
        raise RuntimeError("no such luck")
    if current_fault == "build exits":
        os._exit(7)
    if current_fault == "run aborts":
        mod = product(tirx.call_extern("float32", "abort"))
    elif current_fault == "run exits":
        mod = product(tirx.call_extern("int32", "_exit", 3).astype("float32"))
    elif current_fault == "run hangs":
        mod = product(sleep(FOR_EVER_US))
    elif current_fault == "run is slow":
        mod = product(sleep(SLOW_US))
    elif current_fault == "run raises":
        mod = product(tirx.call_packed("no.such.function").astype("float32"))
    elif current_fault == "one term short":
        mod = product(None, terms=31)
    return real_build(mod, target)


def sleep(us: int) -> Any:
    from tvm import tirx

    return tirx.call_extern("int32", "usleep", us).astype("float32")


def product(side_effect: Any, terms: int = 32) -> Any:
    """`gmm:1x32x32x32` over its first terms, with something that happens once a run."""
    from tvm import te, tirx

    x = te.placeholder((1, 32, 32), name="X")
    y = te.placeholder((1, 32, 32), name="Y")
    k = te.reduce_axis((0, terms), name="k")
    z = te.compute((1, 32, 32), lambda b, i, j: te.sum(x[b, i, k] * y[b, k, j], axis=k), name="Z0")
    if side_effect is None:
        return tvm_adapter.module_from_tensors([x, y, z])
    zero = tirx.const(0.0, "float32")
    w = te.compute(
        (1, 32, 32),
        lambda b, i, j: z[b, i, j] + tirx.if_then_else(tirx.all(i == 0, j == 0), side_effect, zero),
        name="Z",
    )
    return tvm_adapter.module_from_tensors([x, y, w])


if __name__ == "__main__":
    tvm_adapter.build = build
    device_worker.DeviceWorker = FaultyDeviceWorker  # type: ignore[misc]
    device_worker.main()
    sys.stdout.flush()
    os._exit(0)
