"""What tiles make of any program: footprints, traffic, registers, loads, chunks for the threads.

The same numbers, on the same scales, whatever the operator and its shape, so that what was learned
of some programs holds for others. They follow from the knobs and from which elements the tiled
block touches (`schedenv.tvm_accesses`); nothing is lowered. The idea of judging a schedule by such
symbols before anything is built is Pruner's ("Pruner: A Draft-then-Verify Exploration Mechanism",
ASPLOS 2025), for whose GPU quantities these are what decides on a CPU.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from schedenv.hardware import Hardware, vector_registers
from schedenv.space import Point, Sketch, Space, TileKnob
from schedenv.space.draft import is_tiled
from schedenv.tvm_accesses import Access, BlockAccesses, accesses

Floats = npt.NDArray[np.float64]
Columns = dict[str, Floats]

# MetaSchedule tiles spatial and reduction loops in the order SSRSRS, outermost first.
_SPATIAL_LEVELS = (0, 1, 3, 5)
_REDUCTION_LEVELS = (2, 4)
_LEVELS = 6
_MIDDLE = 3
_REGISTERS = 5
_LINE_BYTES = 64
_FULL = 0.8
"""Part of a cache that is there for what a tile touches."""

_USUAL_L1_BYTES = 32 << 10
_USUAL_L2_BYTES = 512 << 10


class TileFeatures:
    """Features of a space's points.

    Args:
        space: The points.

    Attributes:
        names: Of the features; empty if no sketch of the space tiles a reduction.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        blocks = accesses(space.mod)
        self._sketches: dict[int, _TiledSketch] = {}
        for sketch in space.sketches:
            block = _tiled_block(sketch, blocks)
            if block is not None:
                self._sketches[sketch.index] = _TiledSketch(sketch, block, space.hardware)
        row = np.ones((1, space.width), np.int32)
        known = next(iter(self._sketches.values()), None)
        self.names = tuple(known.of(row)) if known is not None else ()

    def of(self, points: Sequence[Point]) -> Floats:
        """Shape (points, features); NaN for points of a sketch that does not tile a reduction."""
        rows = self._space.encode(points)
        out = np.full((len(rows), len(self.names)), np.nan)
        for index, sketch in self._sketches.items():
            chosen = np.flatnonzero(rows[:, 0] == index)
            if len(chosen):
                columns = sketch.of(rows[chosen, 1:])
                out[chosen] = np.stack([columns[name] for name in self.names], axis=1)
        return out


def _tiled_block(sketch: Sketch, blocks: dict[str, BlockAccesses]) -> BlockAccesses | None:
    """The block whose reduction a sketch tiles; None if there is none, or nothing known of it."""
    if not is_tiled(sketch):
        return None
    names = {tile.name.rsplit(".", 1)[0] for tile in _tiles(sketch)}
    block = blocks.get(names.pop()) if len(names) == 1 else None
    # What reads nothing has nothing to reuse.
    return block if block is not None and block.reads else None


def _tiles(sketch: Sketch) -> list[TileKnob]:
    """Those of the block that is tiled at all levels."""
    return [tile for tile in sketch.tiles() if tile.width == len(_levels_of(tile))]


def _levels_of(tile: TileKnob) -> tuple[int, ...]:
    return _REDUCTION_LEVELS if tile.is_reduction else _SPATIAL_LEVELS


class _TiledSketch:
    """Features of the points of one sketch. Sizes are log2."""

    def __init__(self, sketch: Sketch, block: BlockAccesses, hardware: Hardware) -> None:
        self._sketch, self._block = sketch, block
        self._tiles = _tiles(sketch)
        place = {name: index for index, name in enumerate(block.axes)}
        self._axes = [place[tile.name.rsplit(".", 1)[1]] for tile in self._tiles]
        self._reductions = [
            axis for tile, axis in zip(self._tiles, self._axes, strict=True) if tile.is_reduction
        ]
        self._spatial = [axis for axis in self._axes if axis not in self._reductions]
        self._operations = float(math.prod(block.extents))
        self._lanes = hardware.vector_lanes("float32")
        self._registers = vector_registers(hardware.vector_bits)
        self._cores = hardware.cores
        self._caches = {
            "l1": float(hardware.l1d_bytes or _USUAL_L1_BYTES),
            "l2": float(hardware.l2_bytes or _USUAL_L2_BYTES),
        }
        moving = [
            axis
            for axis, extent in enumerate(block.extents)
            if block.write.reach(axis, np.array(float(extent)))[-1] > 1
        ]
        # The axis along which results lie next to each other.
        self._along = moving[-1] if moving else self._spatial[-1]

    def of(self, rows: npt.NDArray[np.int32]) -> Columns:
        """Features of rows of values, each of shape (rows,)."""
        loops = self._loops(rows)
        # What the loops from a level inwards cover of each axis, and how often they do something.
        inwards = np.cumprod(loops[:, :, ::-1], axis=2)[:, :, ::-1]
        covered: Floats = np.ones((*loops.shape[:2], _LEVELS + 1))
        covered[:, :, :_LEVELS] = inwards
        work: Floats = covered.prod(axis=1)
        touched = [_elements(read, covered) for read in self._block.reads]
        touched.append(_elements(self._block.write, covered))
        return {
            **self._caching(covered, work),
            **self._registering(loops, covered, touched),
            **self._reusing(work, touched),
            **self._threading(rows, loops),
            **self._annotating(rows, loops, covered),
            **self._locating(rows, work, touched),
        }

    def _loops(self, rows: npt.NDArray[np.int32]) -> Floats:
        """Extents of the loops, shape (rows, axes, levels)."""
        loops = np.ones((len(rows), len(self._block.axes), _LEVELS))
        for tile, axis in zip(self._tiles, self._axes, strict=True):
            loops[:, axis, _levels_of(tile)] = rows[:, tile.start : tile.start + tile.width]
        return loops

    def _caching(self, covered: Floats, work: Floats) -> Columns:
        """What the loops from each level inwards touch, and what then has to come from beyond."""
        buffers = (*self._block.reads, self._block.write)
        touched_bytes = _LINE_BYTES * np.sum([_lines(one, covered) for one in buffers], axis=0)
        columns: Columns = {
            "whole": _log(touched_bytes[:, 0] / self._caches["l2"]),
            "intensity": _log(work[:, 0] / touched_bytes[:, 0]),
        }
        for level in range(1, _LEVELS):
            columns[f"bytes {level}"] = _log(touched_bytes[:, level] / self._caches["l1"])
            columns[f"work {level}"] = _log(work[:, level])
        for cache, size_bytes in self._caches.items():
            fits = touched_bytes <= _FULL * size_bytes
            # The outermost loops that fit; the innermost statement always does.
            fits[:, -1] = True
            level = fits.argmax(axis=1)[:, np.newaxis]
            traffic = np.take_along_axis(touched_bytes / work, level, axis=1)[:, 0]
            columns[f"traffic beyond {cache}"] = _log(traffic)
        return columns

    def _registering(self, loops: Floats, covered: Floats, touched: list[Floats]) -> Columns:
        """The innermost tile as vectors in registers, and what has to be loaded for it."""
        length = covered[:, self._along, _REGISTERS]
        rows = np.delete(covered[:, :, _REGISTERS], self._along, axis=1).prod(axis=1)
        vectors = np.ceil(length / self._lanes)
        accumulators = rows * vectors
        loads, gathered = np.zeros(len(length)), np.zeros(len(length))
        for read, elements in zip(self._block.reads, touched, strict=False):
            inner = elements[:, _REGISTERS]
            *others, along = read.reach(self._along, length)
            still = np.prod(others, axis=0) == 1
            whole, one = still & (along == length), still & (along == 1)
            loads += np.where(whole, inner / length * vectors, np.where(one, inner, 0.0))
            gathered += np.where(whole | one, 0.0, inner)
        largest = max(self._reductions, key=lambda axis: self._block.extents[axis])
        steps = loops[:, self._reductions, 4].prod(axis=1)
        return {
            "vector length": _log(length),
            "rows": _log(rows),
            "accumulators": _log(accumulators),
            "accumulators a register": _log(accumulators / self._registers),
            "spilled": np.maximum(accumulators / self._registers, 1.0),
            "lanes used": length / (vectors * self._lanes),
            "whole vectors": (length % self._lanes == 0).astype(float),
            "loads a multiply-add": _log(loads / accumulators),
            "gathered a multiply-add": _log(gathered / accumulators + 1e-3),
            "reduction steps inside": _log(steps),
            "of them of the largest reduction": _log(loops[:, largest, 4]),
            "reduction steps outside": _log(loops[:, self._reductions, 2].prod(axis=1)),
            "tiles inside": _log(loops[:, self._spatial, _MIDDLE].prod(axis=1)),
            "covered along, middle": _log(covered[:, self._along, _MIDDLE]),
            "covered along, chunk": _log(covered[:, self._along, 1]),
        }

    def _reusing(self, work: Floats, touched: list[Floats]) -> Columns:
        """How many elements of the first and last read and of the write each operation needs."""
        columns: Columns = {}
        picked = {"first": touched[0], "last": touched[-2], "write": touched[-1]}
        for name, elements in picked.items():
            columns[f"{name}, tile"] = _log(elements[:, _REGISTERS])
            columns[f"{name}, inner"] = _log(elements[:, 4] / work[:, 4] * self._lanes)
            columns[f"{name}, outer"] = _log(elements[:, 2] / work[:, 2])
        return columns

    def _threading(self, rows: npt.NDArray[np.int32], loops: Floats) -> Columns:
        """The chunks that threads share: outer loops are fused until there are enough."""
        enough = self._amount(rows, "parallel")
        chunks = np.ones(len(rows))
        for level in _SPATIAL_LEVELS[:2]:
            for axis in self._spatial:
                chunks *= np.where(chunks <= enough, loops[:, axis, level], 1.0)
        return {
            "chunks": _log(chunks),
            "balance": chunks / (np.ceil(chunks / self._cores) * self._cores),
            "operations a chunk": _log(self._operations / chunks),
            "parallel": _log(1.0 + enough),
            "outermost": _log(loops[:, self._spatial, 0].prod(axis=1)),
        }

    def _annotating(self, rows: npt.NDArray[np.int32], loops: Floats, covered: Floats) -> Columns:
        """How long vectors are to be, and which bodies are unrolled."""
        longest, limit = self._amount(rows, "vectorize"), 1.0 + self._amount(rows, "unroll")
        length = covered[:, self._along, _REGISTERS]
        tile = covered[:, :, _REGISTERS].prod(axis=1)
        steps = tile * loops[:, self._reductions, 4].prod(axis=1)
        return {
            "vectorize": _log(1.0 + longest),
            "vectorize a length": _log((1.0 + longest) / length),
            "unroll": _log(limit),
            "unroll a tile's rows": _log(limit / (tile / length)),
            "unroll a tile": _log(limit / tile),
            "unroll its rows with reductions": _log(limit / (steps / length)),
            "unroll the middle": _log(
                limit / (steps / length * loops[:, self._spatial, _MIDDLE].prod(axis=1))
            ),
        }

    def _locating(
        self, rows: npt.NDArray[np.int32], work: Floats, touched: list[Floats]
    ) -> Columns:
        """Where the first block that can be moved is computed, and how much of it twice."""
        level, repeated = np.full(len(rows), -3.0), np.ones(len(rows))
        locations = list(self._sketch.locations())
        if locations:
            loop = rows[:, locations[0].start]
            spatial, reductions = len(self._spatial), len(self._reductions)
            ends = np.cumsum([spatial, spatial, reductions, spatial, reductions, spatial])
            level = np.where(loop < 0, loop, np.searchsorted(ends, loop, side="right"))
            inside = np.clip(level + 1, 0, _LEVELS).astype(int)[:, np.newaxis]
            each = np.take_along_axis(touched[0], inside, axis=1)[:, 0]
            times = self._operations / np.take_along_axis(work, inside, axis=1)[:, 0]
            repeated = np.where(loop < 0, 1.0, each * times / touched[0][:, 0])
        kinds = [str(instruction.kind.name) for instruction in self._sketch.instructions]
        return {
            "location": level.astype(float),
            "computed again": _log(repeated),
            "movable blocks": np.full(len(rows), float(len(locations))),
            "written through a cache": np.full(
                len(rows), kinds.count("CacheWrite") + 2.0 * kinds.count("ReverseComputeAt")
            ),
        }

    def _amount(self, rows: npt.NDArray[np.int32], role: str) -> Floats:
        """What an annotation is set to; 0 where the sketch has none."""
        for choice in self._sketch.choices():
            if choice.role == role:
                return np.array(choice.choices, float)[rows[:, choice.start]]
        return np.zeros(len(rows))


def _elements(access: Access, covered: Floats) -> Floats:
    """Elements touched by the loops from each level inwards, shape (rows, levels + 1)."""
    elements: Floats = np.prod(access.extents(covered), axis=0)
    return elements


def _lines(access: Access, covered: Floats) -> Floats:
    """Cache lines touched; what lies in one piece shares them."""
    extents = access.extents(covered)
    run, whole = extents[-1], extents[-1] >= access.shape[-1]
    for dimension in range(len(extents) - 2, -1, -1):
        run = np.where(whole, run * extents[dimension], run)
        whole = whole & (extents[dimension] >= access.shape[dimension])
    lines: Floats = np.prod(extents, axis=0) / run * np.ceil(run * access.item_bytes / _LINE_BYTES)
    return lines


def _log(values: Floats) -> Floats:
    return np.log2(np.maximum(values, 1e-6))
