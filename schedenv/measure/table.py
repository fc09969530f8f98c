"""A recorded table: every point of a sub-space with its measured result, and how it was measured.

A table is enough to search its sub-space again, exactly and without TVM or the machine: it knows
the knobs, the canonical forms, the results, and what each of them cost.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import msgspec
import numpy as np

from schedenv.errors import IllegalPointError
from schedenv.hardware import Hardware
from schedenv.measure.result import Phases, Result, Status
from schedenv.space import Point, Restriction, Sketch, SubSpace
from schedenv.space.knobs import INLINE, ChoiceKnob, Knob, LocationKnob, TileKnob

FORMAT_VERSION = 1
"""Raised when a reader of the version before would misunderstand a table."""


class SketchKnobs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is kept of a sketch: its knobs, without TVM's instructions.

    Attributes:
        index: Position among the space's sketches.
        width: Slots of a point.
        tiles: Its tile knobs.
        choices: Its annotations.
        locations: Its compute locations.
    """

    index: int
    width: int
    tiles: tuple[TileKnob, ...]
    choices: tuple[ChoiceKnob, ...]
    locations: tuple[LocationKnob, ...]

    @classmethod
    def of(cls, sketch: Sketch) -> SketchKnobs:
        """The knobs of a sketch."""
        return cls(
            sketch.index,
            sketch.width,
            tuple(sketch.tiles()),
            tuple(sketch.choices()),
            tuple(sketch.locations()),
        )

    def sketch(self) -> Sketch:
        """The sketch as a sub-space needs it."""
        knobs: list[Knob] = [*self.tiles, *self.choices, *self.locations]
        knobs.sort(key=lambda knob: knob.start)
        return Sketch(self.index, (), tuple(knobs), self.width)


class TaskInfo(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The task of a table; the fields are those of `schedenv.tasks.Task`."""

    spec: str
    name: str
    family: str
    content_hash: str
    flops: float
    bytes: int


class Method(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a table was measured.

    Attributes:
        looks: In how many passes, minutes apart, every candidate was timed.
        finalists: How many of the fastest were timed against each other at the end.
        final_turns: How often they were.
        seed: Of the order and of the verification inputs.
        seconds: What recording took; at least, if it was interrupted.
        text: The same in words.
    """

    looks: int
    finalists: int
    final_turns: int
    seed: int
    seconds: float
    text: str


class Optimum(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The fastest point of a table, and how sure that is.

    Attributes:
        point: Its text form.
        estimate_s: Its estimate, seconds a call.
        is_finalist: Whether it was timed once more, against the fastest.
        ties: Text forms of the points whose intervals overlap the optimum's, itself included, the
            fastest first: any of them may be the fastest in truth.
    """

    point: str
    estimate_s: float
    is_finalist: bool
    ties: tuple[str, ...]


class TableInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything about a table but its rows.

    Attributes:
        format_version: `FORMAT_VERSION` of the writer.
        task: What was measured.
        space_version: `schedenv.space.SPACE_VERSION` of the writer.
        restriction: What part of the space.
        sketches: All sketches of the space.
        components: Into how many parts the points fall that legal moves do not connect; 1 is best.
        hardware: The machine.
        versions: Of the packages that matter.
        conditions: Threads, load, slowdown of the reference kernel.
        created_at: When it was finished, in UTC, as ISO 8601.
        method: How it was measured.
        untuned_s: Estimate of the program without a schedule, seconds a call.
        optimum: The fastest point.
    """

    format_version: int
    task: TaskInfo
    space_version: int
    restriction: Restriction
    sketches: tuple[SketchKnobs, ...]
    components: int
    hardware: Hardware
    versions: Mapping[str, str]
    conditions: Mapping[str, Any]
    created_at: str
    method: Method
    untuned_s: float
    optimum: Optimum


class Row(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One point of a table; times have the precision of a float32.

    Attributes:
        point: The point.
        status: How its measurement ended; a failure was confirmed by a second one.
        reason: Why, in words; None when `status` is OK.
        program: Structural hash of the scheduled program; None if it could not be applied.
        code: Structural hash of what it lowers to; None if it could not be lowered.
        samples_s: Samples around the estimate, seconds a call, the machine's drift divided out.
        estimate_s: Seconds a call; None unless `status` is OK.
        low_s: Lower end of the estimate's interval; None unless `status` is OK.
        high_s: Upper end of the estimate's interval; None unless `status` is OK.
        looks_s: The estimate of every look at it, in the order taken.
        max_error: Largest deviation from the reference, 1 being tolerated; None if not verified.
        phases: Seconds that measuring it once took, phase by phase.
        finalist: Whether it was timed once more, against the fastest.
    """

    point: Point
    status: Status
    reason: str | None
    program: str | None
    code: str | None
    samples_s: tuple[float, ...]
    estimate_s: float | None
    low_s: float | None
    high_s: float | None
    looks_s: tuple[float, ...]
    max_error: float | None
    phases: Phases
    finalist: bool

    def __post_init__(self) -> None:
        for name in ("estimate_s", "low_s", "high_s", "max_error"):
            value = getattr(self, name)
            msgspec.structs.force_setattr(self, name, None if value is None else _float32(value))
        for name in ("samples_s", "looks_s"):
            rounded = tuple(_float32(time_s) for time_s in getattr(self, name))
            msgspec.structs.force_setattr(self, name, rounded)
        phases = Phases(*map(_float32, msgspec.structs.astuple(self.phases)))
        msgspec.structs.force_setattr(self, "phases", phases)

    @property
    def canonical(self) -> str:
        """The canonical form of the point, as the whole space gives it."""
        return self.result().canonical

    def result(self) -> Result:
        """The row as a measurer returns it."""
        return Result(
            point=self.point,
            status=self.status,
            reason=self.reason,
            samples_s=self.samples_s,
            estimate_s=self.estimate_s,
            max_error=self.max_error,
            program=self.program,
            code=self.code,
            phases=self.phases,
        )


@dataclass(frozen=True)
class Table:
    """A recorded table.

    Attributes:
        info: Everything about it.
        rows: One a point, in the order of the sub-space's points.
        source: Where it was read from, for messages; empty for one that was just made.
    """

    info: TableInfo
    rows: tuple[Row, ...]
    source: str = field(default="", compare=False)

    @cached_property
    def by_point(self) -> dict[Point, Row]:
        """The rows by point."""
        return {row.point: row for row in self.rows}

    @property
    def optimum_s(self) -> float:
        """The known optimum, seconds a call."""
        return self.info.optimum.estimate_s

    def space(self) -> SubSpace:
        """The sub-space that was measured; needs no TVM."""
        canonical = {row.point: row.canonical for row in self.rows}
        sketches = [knobs.sketch() for knobs in self.info.sketches]
        return SubSpace(sketches, canonical, canonical.__getitem__)

    def check(self) -> None:
        """Refuse a table that contradicts itself.

        Raises:
            ValueError: The message says where.
        """
        for index, knobs in enumerate(self.info.sketches):
            _check_sketch(index, knobs)
        if len(self.by_point) != len(self.rows):
            twice = Counter(row.point for row in self.rows).most_common(1)[0][0]
            raise ValueError(f"the point {twice} is there twice")
        sketches = [knobs.sketch() for knobs in self.info.sketches]
        for row in self.rows:
            _check_point(sketches, row.point)
            _check_row(row)
        self._check_optimum()

    def _check_optimum(self) -> None:
        best_s = min((row.estimate_s for row in self.rows if row.estimate_s), default=None)
        optimum = self.info.optimum
        try:
            named = [
                self.by_point.get(Point.parse(text)) for text in (optimum.point, *optimum.ties)
            ]
        except IllegalPointError as error:
            raise ValueError(str(error)) from None
        if best_s is None or None in named or named[0] is None or named[0].estimate_s != best_s:
            raise ValueError(f"{optimum.point} is not the fastest of its points")
        if best_s != optimum.estimate_s:
            raise ValueError(f"the optimum takes {best_s:g} s, not {optimum.estimate_s:g} s")
        if not (math.isfinite(self.info.untuned_s) and self.info.untuned_s > 0):
            raise ValueError(f"the untuned program takes {self.info.untuned_s:g} s")


def _float32(value: float) -> float:
    """As a file keeps it; the digits that are lost mean nothing in a measured time."""
    return float(np.float32(value))


def _check_sketch(index: int, knobs: SketchKnobs) -> None:
    sketch = knobs.sketch()
    starts = [slot for knob in sketch.knobs for slot in range(knob.start, knob.start + knob.width)]
    if sketch.index != index or starts != list(range(sketch.width)):
        raise ValueError(f"the knobs of sketch {index} do not fill its slots")


def _check_point(sketches: list[Sketch], point: Point) -> None:
    """Refuse what no knob can hold; which locations are open, only TVM knows."""
    if not 0 <= point.sketch < len(sketches):
        raise ValueError(f"the point {point} is of an unknown sketch")
    sketch = sketches[point.sketch]
    if len(point.values) != sketch.width:
        raise ValueError(f"the point {point} does not have {sketch.width} values")
    for knob in sketch.knobs:
        values = point.values[knob.start : knob.start + knob.width]
        legal = values[0] >= INLINE if isinstance(knob, LocationKnob) else knob.is_legal(values)
        if not legal:
            raise ValueError(f"{knob.name} of the point {point} cannot be {list(values)}")


def _check_row(row: Row) -> None:
    times = (*row.samples_s, *row.looks_s)
    if not all(math.isfinite(time_s) and time_s > 0 for time_s in times):
        raise ValueError(f"the point {row.point} has times that are not positive")
    seconds = msgspec.structs.astuple(row.phases)
    if not all(math.isfinite(phase_s) and phase_s >= 0 for phase_s in seconds):
        raise ValueError(f"the point {row.point} has phases that are negative")
    if row.status is not Status.OK:
        if row.estimate_s is not None or row.reason is None:
            raise ValueError(f"the point {row.point} failed, and yet has an estimate or no reason")
    elif row.estimate_s is None or row.low_s is None or row.high_s is None or not row.samples_s:
        raise ValueError(f"the point {row.point} is ok, and yet has no estimate or no samples")
    elif not 0 < row.low_s <= row.estimate_s <= row.high_s < math.inf:
        raise ValueError(f"the estimate of the point {row.point} is not within its interval")
