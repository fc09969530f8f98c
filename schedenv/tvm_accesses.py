"""Which elements a block reads and writes when its axes move: what tiles are worth follows from it.

Index expressions become functions of arrays, and are evaluated at the ends of a tile. So it does
not matter how they are written: over a tile of four by four `v_h * 2 + v_rh` takes 10 values,
`(v_h + v_rh) // 2` 4 and `3 - v_rh` 4; `v_co // 128 * 64`, of a convolution in groups, one until a
tile is longer than a group.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from schedenv import tvm_adapter

Floats = npt.NDArray[np.float64]
Index = Callable[[Mapping[str, Floats]], Floats]
"""What an index is where axes have these values, by their names."""


@dataclass(frozen=True)
class Access:
    """One buffer as one block reads or writes it.

    Attributes:
        buffer: Its name.
        shape: Its extents, outermost first; of a buffer of no dimension those of one element.
        item_bytes: Of an element.
        axes: Names of the block's axes.
        indices: Of each dimension.
        forwards: Whether an index grows with an axis, shape (dimensions, axes).
    """

    buffer: str
    shape: tuple[int, ...]
    item_bytes: int
    axes: tuple[str, ...]
    indices: tuple[Index, ...]
    forwards: npt.NDArray[np.bool_]

    def extents(self, covered: Floats) -> list[Floats]:
        """How far tiles reach in each dimension, in elements.

        A tile is the first one: where an index moves by halves, others may reach one further.

        Args:
            covered: Values that each axis takes, shape (..., axes, levels); from 1 on.

        Returns:
            Of each dimension, shape (..., levels); at most what the buffer has.
        """
        ends = np.moveaxis(covered, -2, 0) - 1.0
        found = []
        for index, forwards, extent in zip(self.indices, self.forwards, self.shape, strict=True):
            highest = dict(zip(self.axes, ends * _column(forwards, ends), strict=True))
            lowest = dict(zip(self.axes, ends * _column(~forwards, ends), strict=True))
            # A remainder may end below where it began; one element is touched all the same.
            found.append(np.clip(1.0 + index(highest) - index(lowest), 1.0, float(extent)))
        return found

    def reach(self, axis: int, count: Floats) -> list[Floats]:
        """`extents` where one axis alone moves.

        Args:
            axis: Its place among the axes.
            count: Values that it takes, any shape.
        """
        covered = np.ones((*count.shape, len(self.axes), 1))
        covered[..., axis, 0] = count
        return [extent[..., 0] for extent in self.extents(covered)]


def _column(flags: npt.NDArray[np.bool_], like: Floats) -> npt.NDArray[np.bool_]:
    """Flags of the first dimension, shaped to be multiplied with all of `like`."""
    return flags.reshape(-1, *(1 for _ in like.shape[1:]))


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
    names = tuple(str(axis.var.name) for axis in axes)
    try:
        indices = [_index(dimension.min, names) for dimension in region.region]
        forwards = [_forwards(index, names, _extents(axes)) for index in indices]
    except TypeError:
        return None
    # A buffer of no dimension is one of one element, which does not move.
    return Access(
        buffer=str(buffer.name),
        shape=tuple(int(extent) for extent in buffer.shape) or (1,),
        item_bytes=np.dtype(str(buffer.dtype)).itemsize,
        axes=names,
        indices=tuple(indices) or (lambda values: np.zeros_like(values[names[0]]),),
        forwards=np.array(forwards or [[True] * len(names)]),
    )


def _forwards(index: Index, names: Sequence[str], extents: Sequence[int]) -> list[bool]:
    """Whether an index grows with each axis, or stays."""
    start = {name: np.zeros(1) for name in names}
    return [
        bool(index(start | {name: np.full(1, extent - 1.0)}) >= index(start))
        for name, extent in zip(names, extents, strict=True)
    ]


def _index(expression: Any, axes: Sequence[str]) -> Index:
    """An index expression as a function of axes.

    Raises:
        TypeError: It is made of something else than arithmetic on axes.
    """
    from tvm import tirx

    if isinstance(expression, tirx.IntImm):
        number = float(expression.value)
        return lambda values: np.full_like(next(iter(values.values())), number)
    if isinstance(expression, tirx.Var) and str(expression.name) in axes:
        name = str(expression.name)
        return lambda values: values[name]
    if isinstance(expression, tirx.Cast):
        return _index(expression.value, axes)
    operators: dict[type, Callable[[Floats, Floats], Floats]] = {
        tirx.Add: operator.add, tirx.Sub: operator.sub, tirx.Mul: operator.mul,
        tirx.FloorDiv: operator.floordiv, tirx.FloorMod: operator.mod,
        tirx.Min: np.minimum, tirx.Max: np.maximum,
    }  # fmt: skip
    combine = operators.get(type(expression))
    if combine is None:
        raise TypeError(f"{type(expression).__name__} is not arithmetic on the block's axes")
    left, right = _index(expression.a, axes), _index(expression.b, axes)
    return lambda values: combine(left(values), right(values))
