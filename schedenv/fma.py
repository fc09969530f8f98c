"""A kernel of nothing but multiply-adds.

At its best it shows the machine's arithmetic peak. Timed before a candidate it shows how disturbed
the machine is at that moment.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from schedenv import tvm_adapter
from schedenv.hardware import Hardware, target

if TYPE_CHECKING:
    from tvm import IRModule

_DEPTH = 256
_REPEATS = 256


class FmaKernel:
    """Register tiles of multiply-adds, one a thread, on inputs that stay in the first cache.

    Args:
        hardware: The machine.
        threads: How many tiles run in parallel.
        rows: Height of a tile; see `tile_rows`.
        repeats: How often a tile is computed; the default makes a call last a few tenths of a
            millisecond: short against the time slices that a neighbour takes, long against the
            microseconds of a call.

    Attributes:
        flops: Operations of one call, a multiply-add counted as two.
    """

    def __init__(
        self, hardware: Hardware, threads: int, rows: int, repeats: int = _REPEATS
    ) -> None:
        import numpy as np
        import tvm

        columns = 2 * hardware.vector_lanes("float32")
        self.flops = 2 * threads * repeats * _DEPTH * rows * columns
        library = tvm_adapter.build(module(threads, rows, columns, repeats), target(hardware))
        random = np.random.default_rng(0)
        shapes = [(threads, _DEPTH, rows), (threads, _DEPTH, columns), (threads, rows, columns)]
        self._tensors = [
            tvm.runtime.tensor(random.random(shape, dtype=np.float32)) for shape in shapes
        ]
        self._function = library["main"]

    def time_s(self) -> float:
        """Seconds of one call."""
        start_s = time.perf_counter()
        self._function(*self._tensors)
        return time.perf_counter() - start_s


def reference_kernel(hardware: Hardware) -> FmaKernel:
    """The kernel whose time is recorded with each candidate's: on all cores."""
    return FmaKernel(hardware, hardware.cores, tile_rows(hardware)[0])


def tile_rows(hardware: Hardware) -> tuple[int, ...]:
    """Heights of register tiles worth trying; each row takes two vector registers.

    Enough accumulators to hide the multiply-adds' latency, few enough not to spill where there are
    16 (`hardware.vector_registers`). Which one wins differs by processor.
    """
    return (8, 12) if hardware.vector_bits == 512 else (4, 6, 8)


def module(threads: int, rows: int, columns: int, repeats: int) -> IRModule:
    """The program: a tile of rows x columns a thread, `repeats` times over its inputs."""
    from tvm import te

    a = te.placeholder((threads, _DEPTH, rows), "float32", name="A")
    b = te.placeholder((threads, _DEPTH, columns), "float32", name="B")
    again = te.reduce_axis((0, repeats), name="again")
    depth = te.reduce_axis((0, _DEPTH), name="depth")
    tile = te.compute(
        (threads, rows, columns),
        lambda p, i, j: te.sum(a[p, depth, i] * b[p, depth, j], axis=[again, depth]),
        name="tile",
    )
    schedule = tvm_adapter.new_schedule(tvm_adapter.module_from_tensors([a, b, tile]))
    block = schedule.get_sblock("tile")
    p, i, j, again_loop, depth_loop = schedule.get_loops(block)
    schedule.reorder(p, again_loop, depth_loop, i, j)
    schedule.vectorize(j)
    schedule.unroll(i)
    registers = schedule.cache_write(block, 0, "local")
    schedule.reverse_compute_at(registers, p)
    if threads > 1:
        schedule.parallel(p)
    # Last: the primitives above refuse a block that is no longer the only writer of its buffer.
    schedule.decompose_reduction(block, again_loop)
    return schedule.mod
