"""A sketch: one structural choice of MetaSchedule, its trace read as a list of typed knobs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from schedenv import tvm_adapter
from schedenv.errors import ConstraintError
from schedenv.space.knobs import ChoiceKnob, Knob, LocationKnob, Role, TileKnob

T = TypeVar("T")

ANNOTATIONS: dict[str, Role] = {
    "meta_schedule.parallel": "parallel",
    "meta_schedule.vectorize": "vectorize",
}


@dataclass(frozen=True)
class Sketch:
    """One trace of MetaSchedule's generator and the knobs found in it.

    Attributes:
        index: Position among the space's sketches.
        instructions: The trace's instructions.
        knobs: In the order of their slots.
        width: Number of slots that a point of this sketch has.
    """

    index: int
    instructions: tuple[Any, ...]
    knobs: tuple[Knob, ...]
    width: int

    def tiles(self) -> Iterator[TileKnob]:
        """The tile knobs, in slot order."""
        return (knob for knob in self.knobs if isinstance(knob, TileKnob))

    def choices(self) -> Iterator[ChoiceKnob]:
        """The annotation knobs, in slot order."""
        return (knob for knob in self.knobs if isinstance(knob, ChoiceKnob))

    def locations(self) -> Iterator[LocationKnob]:
        """The compute-location knobs, in the order of the trace."""
        return (knob for knob in self.knobs if isinstance(knob, LocationKnob))

    def default_values(self) -> tuple[int, ...]:
        """Every knob at its default: nothing tiled, stock annotations, all blocks at the root."""
        return tuple(value for knob in self.knobs for value in knob.default())

    def bind(self, values: Sequence[int]) -> tuple[list[Any], dict[Any, Any]]:
        """Turn a point's values into instructions and decisions for a replay."""
        instructions: list[Any] = list(self.instructions)
        decisions: dict[Any, Any] = {}
        for knob in self.knobs:
            instruction = self.instructions[knob.instruction]
            if isinstance(knob, TileKnob):
                decisions[instruction] = list(values[knob.start : knob.start + knob.width])
            elif isinstance(knob, LocationKnob) or knob.role == "unroll":
                decisions[instruction] = values[knob.start]
            else:
                amount = knob.choices[values[knob.start]]
                # An annotation of 0 or -1 is not "off" to TVM: 0 still parallelises the first
                # loop, -1 sends its postprocessor into an endless loop. Off is no instruction.
                instructions[knob.instruction] = (
                    tvm_adapter.copy_instruction(instruction, [instruction.inputs[0], amount])
                    if amount
                    else None
                )
        return [inst for inst in instructions if inst is not None], decisions

    def read_back(self, trace: Any) -> tuple[int, ...]:
        """The values of the knobs as an applied trace holds them.

        Raises:
            ConstraintError: The trace has other sampling instructions than the sketch.
        """
        samples = [inst for inst in trace.insts if inst.kind.name.startswith("Sample")]
        annotated = {
            ANNOTATIONS[str(inst.attrs[0])]: int(inst.inputs[1])
            for inst in trace.insts
            if inst.kind.name == "Annotate" and str(inst.attrs[0]) in ANNOTATIONS
        }
        sampled = [
            knob
            for knob in sorted(self.knobs, key=lambda knob: knob.instruction)
            if not (isinstance(knob, ChoiceKnob) and knob.role != "unroll")
        ]
        if len(samples) != len(sampled):
            raise ConstraintError(
                f"expected {len(sampled)} sampling instructions, the trace has {len(samples)}"
            )
        values = [0] * self.width
        for knob, inst in zip(sampled, samples, strict=True):
            decision = trace.decisions[inst]
            factors = [int(f) for f in decision] if isinstance(knob, TileKnob) else [int(decision)]
            values[knob.start : knob.start + knob.width] = factors
        for choice in self.choices():
            if choice.role != "unroll":
                values[choice.start] = choice.choices.index(annotated.get(choice.role, 0))
        return tuple(values)


def read_sketch(
    index: int, mod: Any, trace: Any, parallel: tuple[int, ...], vectorize: tuple[int, ...]
) -> Sketch:
    """Find the knobs of one generated trace.

    Args:
        index: Position of the sketch.
        mod: The module that the trace applies to.
        trace: A trace with a decision at every sampling instruction.
        parallel: Menu of the parallel annotation, without the stock value.
        vectorize: Menu of the vectorize annotation, without the stock value.
    """
    instructions = tuple(trace.insts)
    names = _Names(mod, instructions)
    menus = {"parallel": parallel, "vectorize": vectorize}
    knobs: list[Knob] = []
    start = 0
    for position, inst in enumerate(instructions):
        kind = str(inst.kind.name)
        knob: Knob
        if kind == "SamplePerfectTile":
            factors = [int(factor) for factor in trace.decisions[inst]]
            limit = int(inst.attrs[1])
            extent = math.prod(factors)
            axis, is_reduction = names.axis(inst.inputs[0])
            knob = TileKnob(
                axis,
                position,
                start,
                len(factors),
                extent,
                limit if limit > 0 else extent,
                is_reduction,
            )
        elif kind == "SampleCategorical":
            choices = tuple(int(choice) for choice in inst.attrs[0])
            knob = ChoiceKnob("unroll", position, start, choices, stock=0)
        elif kind == "SampleComputeLocation":
            knob = LocationKnob(f"{names.block(inst.inputs[0])}@", position, start)
        elif kind == "Annotate" and str(inst.attrs[0]) in ANNOTATIONS:
            role = ANNOTATIONS[str(inst.attrs[0])]
            stock = int(inst.inputs[1])
            choices = tuple(sorted({0, stock, *menus[role]}))
            knob = ChoiceKnob(role, position, start, choices, choices.index(stock))
        else:
            continue
        knobs.append(knob)
        start += knob.width
    return Sketch(index, instructions, tuple(knobs), start)


class _Names:
    """Readable names for the random variables of a trace: which block, which axis."""

    def __init__(self, mod: Any, instructions: Sequence[Any]) -> None:
        self._blocks: list[tuple[Any, str]] = []
        self._axes: list[tuple[Any, tuple[str, bool]]] = []
        for inst in instructions:
            kind = str(inst.kind.name)
            if kind == "GetSBlock":
                self._blocks.append((inst.outputs[0], str(inst.attrs[0])))
            elif kind == "RFactor":
                self._blocks.append((inst.outputs[0], "rfactor"))
            elif kind == "GetProducers":
                consumer = self.block(inst.inputs[0])
                self._blocks += [(output, f"{consumer}.producer") for output in inst.outputs]
            elif kind == "GetLoops":
                block = self.block(inst.inputs[0])
                axes = tvm_adapter.block_axes(mod, block)
                for loop, axis in zip(inst.outputs, axes, strict=False):
                    self._axes.append((loop, (f"{block}.{axis.name}", axis.is_reduction)))

    def block(self, variable: Any) -> str:
        return _lookup(self._blocks, variable, "block")

    def axis(self, variable: Any) -> tuple[str, bool]:
        return _lookup(self._axes, variable, ("loop", False))


def _lookup(pairs: Sequence[tuple[Any, T]], variable: Any, default: T) -> T:
    return next((found for known, found in pairs if known.same_as(variable)), default)
