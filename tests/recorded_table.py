"""A small recorded table whose times are computed from the points."""

import math
import zlib

import numpy as np

from schedenv.hardware import Hardware
from schedenv.measure import Phases, Status
from schedenv.measure.table import (
    FORMAT_VERSION,
    Method,
    Optimum,
    Row,
    SketchKnobs,
    Table,
    TableInfo,
    TaskInfo,
)
from schedenv.space import SPACE_VERSION, Point, Space, SubSpace, fit_restriction
from schedenv.tasks import Task
from schedenv.tuning.tabulate import find_optimum


def latency_s(point: Point) -> float:
    """Between 1 and a few microseconds, different for every point."""
    rng = np.random.default_rng(zlib.crc32(str(point).encode()))
    return 1e-6 * (1 + sum(math.log2(1 + abs(v)) for v in point.values) / 20 + rng.random() / 50)


def row(point: Point, program: str | None, *, fails: bool = False) -> Row:
    estimate_s = latency_s(point)
    rng = np.random.default_rng(zlib.crc32(str(point).encode()))
    return Row(
        point=point,
        status=Status.WRONG_RESULT if fails else Status.OK,
        reason="off by 3.1 times the tolerance" if fails else None,
        program=program,
        code=program,
        samples_s=() if fails else tuple(estimate_s * (1 + rng.random(5) / 100)),
        estimate_s=None if fails else estimate_s,
        low_s=None if fails else estimate_s * 0.98,
        high_s=None if fails else estimate_s * 1.02,
        looks_s=() if fails else (estimate_s,) * 3,
        max_error=3.1 if fails else 0.01,
        phases=Phases(0.01, float(0.1 + rng.random()), 0.02, 0.03, 0.0 if fails else 0.04),
        finalist=False,
    )


def make_table(task: Task, space: Space, hardware: Hardware, points: int = 40) -> Table:
    """A table of a fitted part of `space`; every seventh point fails."""
    restriction = fit_restriction(space, points)
    part = SubSpace.of(space, restriction)
    rows = [
        row(point, space.canonical(point), fails=index % 7 == 3)
        for index, point in enumerate(part.points())
    ]
    optimum = find_optimum(rows)
    assert isinstance(optimum, Optimum)
    info = TableInfo(
        format_version=FORMAT_VERSION,
        task=TaskInfo(task.spec, task.name, task.family, task.content_hash, task.flops, task.bytes),
        space_version=SPACE_VERSION,
        restriction=restriction,
        sketches=tuple(SketchKnobs.of(sketch) for sketch in part.sketches),
        components=part.components(),
        hardware=hardware,
        versions={"schedenv": "0.1.0"},
        conditions={"threads": hardware.cores},
        created_at="2026-01-01T00:00:00+00:00",
        method=Method(3, 30, 2, 0, 12.5, "computed"),
        untuned_s=1e-5,
        optimum=optimum,
    )
    return Table(info, tuple(rows))
