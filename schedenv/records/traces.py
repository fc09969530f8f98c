"""MetaSchedule's traces as points: the same decisions, found in one of the space's sketches.

Works on a trace's JSON alone, so a trace from anybody's file is read without TVM.
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from schedenv import tvm_database
from schedenv.errors import SchedenvError
from schedenv.space import Point, Space
from schedenv.space.knobs import ChoiceKnob, LocationKnob, TileKnob
from schedenv.space.sketch import ANNOTATIONS, Sketch


class NotExpressibleError(SchedenvError, ValueError):
    """A trace that is no point of the space; the message says why."""


class TraceReader:
    """Finds the points of one space that traces stand for.

    Args:
        space: The space.
    """

    def __init__(self, space: Space) -> None:
        self._space = space
        self._sketches = [
            (sketch, _normal(tvm_database.trace_json(sketch.instructions)))
            for sketch in space.sketches
        ]

    def point(self, trace: Any) -> Point:
        """The point that has a trace's decisions.

        Args:
            trace: A trace as JSON: instructions, and decisions by instruction.

        Raises:
            NotExpressibleError: It is no trace, has the structure of no sketch, or a decision
                that the space does not have.
        """
        return self._legal(trace, {})

    def relatives(self, trace: Any) -> list[Point]:
        """Points that differ from a trace in nothing but annotations that the space does not have.

        MetaSchedule's mutator of parallel loops writes any product of loop extents, the space has
        a short menu. Both often fuse the same loops, so one of these points may be the trace's
        program; only the programs can tell.

        Args:
            trace: As for `point`.

        Returns:
            One point for every choice of the menus that the trace's annotations are missing from;
            empty if a decision of another kind is not of the space either.
        """
        sketch, found, instructions, _ = self._matched(trace)
        foreign = [
            knob
            for knob in sketch.choices()
            if knob.role != "unroll" and _amount(knob, found, instructions) not in knob.choices
        ]
        points = []
        for amounts in itertools.product(*(knob.choices for knob in foreign)):
            instead: dict[str, int] = {
                knob.role: amount for knob, amount in zip(foreign, amounts, strict=True)
            }
            with contextlib.suppress(NotExpressibleError):
                points.append(self._legal(trace, instead))
        return points

    def is_untidy(self, trace: Any) -> bool:
        """Whether a tile of a trace has factors that do not multiply to its extent.

        Droplet Search sets them one by one. TVM repairs such a tile silently when it applies the
        trace, and the applied trace has the factors that it took.

        Raises:
            NotExpressibleError: It is no trace, or has the structure of no sketch.
        """
        sketch, found, _, decisions = self._matched(trace)
        tiles: list[tuple[TileKnob, Any]] = [
            (tile, decisions.get(found[tile.instruction])) for tile in sketch.tiles()
        ]
        if not all(_are_integers(slots, tile.width) and min(slots) > 0 for tile, slots in tiles):
            return False
        return any(math.prod(slots) != tile.extent for tile, slots in tiles)

    def _legal(self, trace: Any, instead: Mapping[str, int]) -> Point:
        sketch, found, instructions, decisions = self._matched(trace)
        point = _read(sketch, found, instructions, decisions, instead)
        illegal = self._space.explain_illegal(point)
        if illegal is not None:
            raise NotExpressibleError(illegal)
        return point

    def _matched(self, trace: Any) -> tuple[Sketch, dict[int, int], list[Any], dict[int, Any]]:
        """The sketch that a trace has the structure of, and where its instructions are."""
        instructions, decisions = _parts(trace)
        normal = _normal(instructions)
        for sketch, expected in self._sketches:
            found = _match(expected, normal)
            if found is not None:
                return sketch, found, instructions, decisions
        raise NotExpressibleError(
            f"its {len(instructions)} instructions are not those of any of the space's "
            f"{len(self._sketches)} sketches"
        )


def _parts(trace: Any) -> tuple[list[Any], dict[int, Any]]:
    """A trace's instructions without the postprocessing part, and its decisions."""
    try:
        instructions, decisions = trace
        kept: list[Any] = []
        for instruction in instructions:
            kind, inputs, attrs, outputs = instruction
            if kind == "EnterPostproc":
                break
            kept.append([kind, list(inputs), list(attrs), list(outputs)])
        return kept, {int(index): decision for index, decision in decisions}
    except (TypeError, ValueError, OverflowError) as error:
        raise NotExpressibleError(f"it is no trace ({error})") from None


def _normal(instructions: Sequence[Any]) -> list[tuple[int, Any]]:
    """Instructions with their places: those without effect left out, variables numbered anew.

    MetaSchedule's search drops instructions that only look something up that nobody uses; its
    generator does not.
    """
    live: set[str] = set()
    kept = []
    for place in reversed(range(len(instructions))):
        kind, inputs, _, outputs = instructions[place]
        if not str(kind).startswith("Get") or live.intersection(_names(outputs)):
            live.update(_names(inputs))
            kept.append(place)
    names: dict[str, str] = {}
    normal = []
    for place in reversed(kept):
        kind, inputs, attrs, outputs = instructions[place]
        for name in _names(outputs):
            names.setdefault(name, f"%{len(names)}")
        renamed = [kind, _renamed(inputs, names), attrs, _renamed(outputs, names)]
        normal.append((place, renamed))
    return normal


def _names(value: Any) -> list[str]:
    """Every string in nested lists; those that name no variable do no harm."""
    if isinstance(value, str):
        return [value]
    if isinstance(value, list):
        return [name for item in value for name in _names(item)]
    return []


def _renamed(value: Any, names: dict[str, str]) -> Any:
    if isinstance(value, str):
        return names.get(value, value)
    if isinstance(value, list):
        return [_renamed(item, names) for item in value]
    return value


def _match(
    expected: Sequence[tuple[int, Any]], given: Sequence[tuple[int, Any]]
) -> dict[int, int] | None:
    """Where each of a sketch's instructions is in a trace; None if it is another sketch's.

    An annotation that the sketch leaves open may have any value, or be missing: that is how it is
    turned off.
    """
    found = {}
    at = 0
    for index, (kind, inputs, attrs, outputs) in expected:
        place, here = given[at] if at < len(given) else (-1, None)
        if kind == "Annotate" and attrs[0] in ANNOTATIONS:
            if here is not None and (here[0], here[1][:1], here[2]) == (kind, inputs[:1], attrs):
                found[index] = place
                at += 1
            continue
        if here != [kind, inputs, attrs, outputs]:
            return None
        found[index] = place
        at += 1
    return found if at == len(given) else None


def _read(
    sketch: Sketch,
    found: dict[int, int],
    instructions: Sequence[Any],
    decisions: dict[int, Any],
    instead: Mapping[str, int],
) -> Point:
    values = [0] * sketch.width
    for knob in sketch.knobs:
        at = found.get(knob.instruction)
        if isinstance(knob, ChoiceKnob) and knob.role != "unroll":
            amount = instead.get(knob.role, _amount(knob, found, instructions))
            if amount not in knob.choices:
                raise NotExpressibleError(
                    f"{knob.name}: expected one of {list(knob.choices)}, got {amount!r:.40}"
                )
            values[knob.start] = knob.choices.index(amount)
            continue
        decision = decisions.get(-1 if at is None else at)
        slots: Any = decision if isinstance(knob, TileKnob) else [decision]
        if not _are_integers(slots, knob.width):
            what = "a location" if isinstance(knob, LocationKnob) else f"{knob.width} numbers"
            raise NotExpressibleError(f"{knob.name}: expected {what}, got {decision!r:.40}")
        values[knob.start : knob.start + knob.width] = slots
    return Point(sketch.index, tuple(values))


def _amount(knob: ChoiceKnob, found: Mapping[int, int], instructions: Sequence[Any]) -> Any:
    """What a trace says of an annotation; 0 if it does not have it."""
    at = found.get(knob.instruction)
    if at is None:
        return 0
    given = instructions[at][1][1:2]
    return given[0] if given else given


def _are_integers(slots: Any, count: int) -> bool:
    return (
        isinstance(slots, list)
        and len(slots) == count
        and all(type(slot) is int and abs(slot) < 1 << 40 for slot in slots)
    )
