"""Which compute locations TVM accepts at a point.

TVM snaps a compute location that it does not accept to the next lower one, silently
(SampleComputeLocation in src/s_tir/schedule/primitive/sampling.cc), so the space must know TVM's
list of candidates. Where a block's only consumer is a tiled block, the list follows from the tile
factors by the rule of CollectComputeLocation (src/s_tir/schedule/analysis/analysis.cc), written
again here: it needs no TVM call. Elsewhere (softmax, reductions factored out) TVM itself is asked,
once for each pattern of unit loops: it does not expose the list, but probing the snapping reveals
it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from schedenv import tvm_adapter
from schedenv.space.knobs import INLINE, ROOT, LocationKnob
from schedenv.space.sketch import Sketch

_BEYOND_EVERY_LOOP = 1 << 20


@dataclass(frozen=True)
class Consumer:
    """What decides a block's candidates, given where earlier blocks went.

    Attributes:
        can_inline: Whether the block can be inlined.
        loops: For each loop of the only consumer, outermost first, the slot that holds its extent
            and whether it is a reduction; None if the loops are not all tile levels.
    """

    can_inline: bool
    loops: tuple[tuple[int, bool], ...] | None


class LocationOracle:
    """Answers, for one module, which values a location knob may take at a point."""

    def __init__(self, mod: Any) -> None:
        self._mod = mod
        self._consumers: dict[tuple[object, ...], Consumer] = {}
        self._probed: dict[tuple[object, ...], tuple[int, ...]] = {}

    def candidates(
        self, sketch: Sketch, knob: LocationKnob, values: Sequence[int]
    ) -> tuple[int, ...]:
        """Legal values of `knob`, ascending, given the other values of the point.

        Only what stands before the knob in the trace matters: the tiles and earlier locations.
        `ROOT` is always among them.
        """
        key = _key(sketch, knob, values)
        consumer = self.consumer(sketch, knob, values)
        if consumer.loops is not None:
            fixed = (INLINE, ROOT) if consumer.can_inline else (ROOT,)
            return (*fixed, *_reachable_loops(consumer.loops, values))
        unit_loops = tuple(
            values[slot] == 1
            for tile in sketch.tiles()
            for slot in range(tile.start, tile.start + tile.width)
        )
        if (key, unit_loops) not in self._probed:
            self._probed[key, unit_loops] = self.probe(sketch, knob, values)
        return self._probed[key, unit_loops]

    def consumer(self, sketch: Sketch, knob: LocationKnob, values: Sequence[int]) -> Consumer:
        """What decides the candidates; of a point, only the earlier locations matter."""
        key = _key(sketch, knob, values)
        if key not in self._consumers:
            self._consumers[key] = self._find_consumer(sketch, knob, values)
        return self._consumers[key]

    def probe(self, sketch: Sketch, knob: LocationKnob, values: Sequence[int]) -> tuple[int, ...]:
        """The candidates as TVM has them, with nothing assumed and nothing remembered."""
        schedule, block = self._stop_before(sketch, knob, values)

        def snapped(value: int) -> int:
            schedule.sample_compute_location(block, decision=value)
            trace = schedule.trace
            return int(trace.decisions[trace.insts[-1]])

        found = [snapped(_BEYOND_EVERY_LOOP)]
        while found[-1] > ROOT:
            found.append(snapped(found[-1] - 1))
        if found[-1] == ROOT and snapped(INLINE) == INLINE:
            found.append(INLINE)
        return tuple(reversed(found))

    def _find_consumer(self, sketch: Sketch, knob: LocationKnob, values: Sequence[int]) -> Consumer:
        schedule, block = self._stop_before(sketch, knob, values)
        levels = []
        for tile in sketch.tiles():
            # The instruction after a SamplePerfectTile is the Split that uses its factors.
            split = schedule.trace.insts[tile.instruction + 1]
            levels += [
                (tvm_adapter.loop_node(schedule, loop), tile.start + level, tile.is_reduction)
                for level, loop in enumerate(split.outputs)
            ]
        consumers = schedule.get_consumers(block)
        loops: list[tuple[int, bool]] = []
        complete = len(consumers) == 1
        for loop in schedule.get_loops(consumers[0]) if complete else ():
            node = schedule.get(loop)
            level = next(((slot, red) for known, slot, red in levels if node.same_as(known)), None)
            if level is None:
                complete = False
                break
            loops.append(level)
        can_inline = self.probe(sketch, knob, values)[0] == INLINE
        return Consumer(can_inline, tuple(loops) if complete and loops else None)

    def _stop_before(
        self, sketch: Sketch, knob: LocationKnob, values: Sequence[int]
    ) -> tuple[Any, Any]:
        """Replay up to the knob's instruction; the schedule and the block that is to be placed."""
        _, decisions = sketch.bind(values)
        before = sketch.instructions[: knob.instruction]
        wanted = sketch.instructions[knob.instruction].inputs[0]
        schedule = tvm_adapter.replay(self._mod, before, decisions)
        for original, replayed in zip(before, schedule.trace.insts, strict=True):
            for position, output in enumerate(original.outputs):
                if output.same_as(wanted):
                    return schedule, replayed.outputs[position]
        raise AssertionError(f"no instruction defines the block of {knob.name}")


def _key(sketch: Sketch, knob: LocationKnob, values: Sequence[int]) -> tuple[object, ...]:
    """The knob and where the earlier locations are."""
    earlier = tuple(
        values[other.start] for other in sketch.locations() if other.instruction < knob.instruction
    )
    return (sketch.index, knob.start, earlier)


def _reachable_loops(loops: Sequence[tuple[int, bool]], values: Sequence[int]) -> list[int]:
    """Loop indices under which the block may be computed, by TVM's rule for good locations.

    Unit loops are skipped; no data-parallel loop after a reduction; no trailing reduction.
    """
    last_parallel = max((i for i, (_, reduction) in enumerate(loops) if not reduction), default=-1)
    found = []
    seen_reduction = False
    for index, (slot, reduction) in enumerate(loops):
        if values[slot] == 1:
            continue
        if reduction:
            seen_reduction = True
            if index > last_parallel:
                break
        elif seen_reduction:
            break
        found.append(index)
    return found
