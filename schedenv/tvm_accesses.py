"""Which elements a block reads and writes when its axes move: what tiles are worth follows from it.

Index expressions are evaluated at the ends of each axis, so that it does not matter how they are
written: `v_h * 2 + v_rh` moves by 2 and by 1, `(v_h + v_rh) // 2` by a half, `3 - v_rh` by 1, and
`v_co // 512 * 512`, of an axis of 512, not at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from schedenv import tvm_adapter


@dataclass(frozen=True)
class Access:
    """One buffer as one block reads or writes it.

    Attributes:
        buffer: Its name.
        shape: Its extents, outermost first.
        item_bytes: Of an element.
        steps: How far each index moves with a step of each axis, shape (dimensions, axes); never
            negative. A buffer of no dimension counts as one of one element.
    """

    buffer: str
    shape: tuple[int, ...]
    item_bytes: int
    steps: npt.NDArray[np.float64]


@dataclass(frozen=True)
class BlockAccesses:
    """What a block of TIR does.

    Attributes:
        axes: Names of its axes.
        extents: Of the axes.
        reads: The buffers that it reads, the one that it writes apart.
        write: The buffer that it writes.
    """

    axes: tuple[str, ...]
    extents: tuple[int, ...]
    reads: tuple[Access, ...]
    write: Access


def accesses(mod: Any) -> dict[str, BlockAccesses]:
    """What every block of `main` that writes one buffer does, by the block's name.

    A block whose indices cannot be evaluated (they are read from a buffer) is left out.
    """
    found: dict[str, BlockAccesses] = {}
    for block in tvm_adapter.blocks(mod):
        if not block.iter_vars or len(block.writes) != 1:
            continue
        reads = [_access(region, block.iter_vars) for region in block.reads]
        write = _access(block.writes[0], block.iter_vars)
        if write is None:
            continue
        known = [read for read in reads if read is not None]
        if len(known) < len(reads):
            continue
        found[str(block.name_hint)] = BlockAccesses(
            axes=tuple(str(axis.var.name) for axis in block.iter_vars),
            extents=tuple(_extents(block.iter_vars)),
            reads=tuple(read for read in known if read.buffer != write.buffer),
            write=write,
        )
    return found


def _extents(axes: Sequence[Any]) -> list[int]:
    return [int(axis.dom.extent) for axis in axes]


def _access(region: Any, axes: Sequence[Any]) -> Access | None:
    """How a region moves; None if that cannot be told."""
    buffer = region.source
    try:
        steps = [_steps(dimension.min, axes) for dimension in region.region]
    except TypeError:
        return None
    # A buffer of no dimension is one of one element, which does not move.
    return Access(
        buffer=str(buffer.name),
        shape=tuple(int(extent) for extent in buffer.shape) or (1,),
        item_bytes=np.dtype(str(buffer.dtype)).itemsize,
        steps=np.array(steps or [[0.0] * len(axes)]),
    )


def _steps(index: Any, axes: Sequence[Any]) -> list[float]:
    """How far an index moves with a step of each axis, on average over the axis."""
    extents = _extents(axes)
    start = _value(index, axes, [0] * len(axes))
    steps = []
    for place, extent in enumerate(extents):
        end = _value(index, axes, [extent - 1 if p == place else 0 for p in range(len(axes))])
        steps.append(abs(end - start) / (extent - 1) if extent > 1 else 0.0)
    return steps


def _value(index: Any, axes: Sequence[Any], values: Sequence[int]) -> int:
    """An index expression at some values of the axes.

    Raises:
        TypeError: It is not a number there.
    """
    from tvm.sym import Analyzer
    from tvm.tirx import const

    analyzer = Analyzer()
    for axis, value in zip(axes, values, strict=True):
        analyzer.bind(axis.var, const(value, str(axis.var.ty.dtype)))
    return int(analyzer.simplify(index))
