"""Importing a MetaSchedule database: which traces are points, and what bad lines do."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schedenv import hardware as hw
from schedenv import tvm_database
from schedenv.errors import InputError
from schedenv.measure import Status
from schedenv.records import Archive
from schedenv.records.import_worker import RECORDS, WORKLOADS
from schedenv.records.metaschedule_import import Imported, import_database
from schedenv.records.traces import NotExpressibleError, TraceReader
from schedenv.space import Point, Space
from schedenv.tasks import Task, resolve

TASK = "gmm:1x32x32x32"


def legal_points(space: Space, count: int) -> list[Point]:
    """One point of each sketch first, then more; none that TVM refuses."""
    rng = np.random.default_rng(3)
    found = [space.default(sketch.index) for sketch in space.sketches]
    found += [space.sample(rng) for _ in range(3 * count)]
    return [p for p in found if not space.canonical(p).startswith("refused")][:count]


# -- traces -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "spec",
    [
        TASK,
        "sfm:8x12",
        pytest.param("c2d:1x6x6x4x8x3x1x1", marks=pytest.mark.slow),
        pytest.param("tbg:1x8x2x6", marks=pytest.mark.slow),
    ],
)
def test_the_trace_of_a_point_is_read_as_that_point(spec: str, space_of: Any) -> None:
    space = space_of(spec)
    reader = TraceReader(space)
    for point in legal_points(space, 8):
        trace = space.apply(point).trace
        # As it is, and as MetaSchedule's search stores it: without instructions of no effect.
        for stored in (trace, trace.simplified(remove_postproc=False)):
            assert reader.point(as_json(stored)) == point


def as_json(trace: Any) -> Any:
    """A trace as a database's line has it."""
    return json.loads(json.dumps(trace.as_json(), default=plain))


def plain(value: Any) -> Any:
    return value.value if hasattr(value, "value") else list(value)


@pytest.fixture(scope="module")
def trace(tiny_space: Space) -> Any:
    return as_json(tiny_space.apply(tiny_space.default(0)).trace)


def edited(trace: Any, kind: str, change: Any) -> Any:
    copy = json.loads(json.dumps(trace))
    change(next(i for i in copy[0] if i[0] == kind), copy)
    return copy


def test_decisions_that_the_space_does_not_have_are_named(tiny_space: Space, trace: Any) -> None:
    reader = TraceReader(tiny_space)

    def refused(changed: Any) -> str:
        with pytest.raises(NotExpressibleError) as raised:
            reader.point(changed)
        return str(raised.value)

    def set_first_decision(value: Any) -> Any:
        def change(_: Any, copy: Any) -> None:
            copy[1][0][1] = value

        return edited(trace, "GetSBlock", change)

    first = tiny_space.sketches[0].knobs[0]
    assert refused(set_first_decision([3, 1, 1, 1])) == (
        f"{first.name}: [3, 1, 1, 1] is not one of its 1 values"
    )
    assert refused(set_first_decision("x")) == f"{first.name}: expected 4 numbers, got 'x'"
    assert refused(set_first_decision([True, 1, 1, 1])).startswith(f"{first.name}: expected 4")
    assert refused([trace[0][:5], trace[1]]) == (
        "its 5 instructions are not those of any of the space's 3 sketches"
    )
    assert refused([trace[0], []]).startswith(f"{first.name}: expected 4 numbers, got None")

    def parallel(instruction: Any, copy: Any) -> None:
        for one in copy[0]:
            if one[0] == "Annotate" and one[2] == ["meta_schedule.parallel"]:
                one[1][1] = 7

    choices = next(k for k in tiny_space.sketches[0].choices() if k.role == "parallel").choices
    assert refused(edited(trace, "Annotate", parallel)) == (
        f"parallel: expected one of {list(choices)}, got 7"
    )


@pytest.mark.parametrize(
    "junk", [None, 3, "x", [], [[]], [[], [], []], [[3], []], [[["A"]], []], [[], [[1e999, 2]]]]
)
def test_what_is_no_trace_is_refused(junk: Any, tiny_space: Space) -> None:
    with pytest.raises(NotExpressibleError):
        TraceReader(tiny_space).point(junk)


# -- databases --------------------------------------------------------------------------------


class Made:
    """A database: good records of a few points, and then whatever a test adds."""

    def __init__(self, directory: Path, task: Task, space: Space, points: list[Point]) -> None:
        self.directory, self.points = directory, points
        directory.mkdir()
        records = [
            (task.mod, space.apply(point).trace.simplified(remove_postproc=False), 1e-6 * (n + 1))
            for n, point in enumerate(points)
        ]
        tvm_database.write_database(str(directory), records, hw.target(hw.detect()))
        self.lines = (directory / RECORDS).read_text().splitlines()

    def write(self, *lines: str) -> Path:
        (self.directory / RECORDS).write_text("\n".join(lines) + "\n")
        return self.directory


@pytest.fixture
def made(tiny_task: Task, tiny_space: Space, tmp_path: Path) -> Made:
    return Made(tmp_path / "database", tiny_task, tiny_space, legal_points(tiny_space, 4))


def imported(directory: Path, to: Path) -> tuple[Imported, Any]:
    with Archive(to) as archive:
        report = import_database(directory, resolve(TASK), hw.detect(), archive)
        return report, archive.read()


def changed(line: str, at: list[Any], value: Any) -> str:
    content = json.loads(line)
    place = content
    for key in at[:-1]:
        place = place[key]
    place[at[-1]] = value
    return json.dumps(content)


def test_good_lines_are_imported_and_bad_ones_are_named_by_number(
    made: Made, tiny_space: Space, tmp_path: Path
) -> None:
    good = made.lines
    # A division by zero within TVM, which kills the process that reads it.
    deadly = json.loads(good[3])
    instructions = deadly[1][0][0]
    instructions.append(["GetSBlock", [], ["Z", "main"], ["b900"]])
    instructions.append(["GetLoops", ["b900"], [], [f"l{901 + n}" for n in range(99)]])
    lines = [
        good[0],
        "{ torn",
        changed(good[1], [1, 1], [1e10]),
        changed(good[1], [1, 1], [-1.0]),
        changed(good[1], [0], 9),
        changed(good[1], [1, 2, "mcpu"], "i386"),
        "[" * 50_000 + "]" * 50_000,
        '"' + "x" * (5 << 20) + '"',
        good[1],
        "",
        changed(good[2], [1, 0, 0], []),
        deadly_line(good[2]),
        json.dumps(deadly),
        good[2],
    ]
    report, reading = imported(made.write(*lines), tmp_path / "r.sqlite")
    kinds = {line.number: line.kind for line in report.left_out}
    reasons = {line.number: line.reason for line in report.left_out}
    assert report.added == 3
    assert kinds == {
        2: "corrupt", 3: "failed", 4: "corrupt", 5: "corrupt", 6: "other", 7: "corrupt",
        8: "corrupt", 11: "outside", 12: "corrupt", 13: "outside",
    }  # fmt: skip
    assert reasons[3] == "the candidate failed there"
    assert reasons[4] == "its times are not positive numbers"
    assert reasons[5] == "there is no workload 9"
    assert reasons[6] == f"its target's mcpu is 'i386', this machine's {hw.detect().mcpu!r}"
    assert reasons[8] == "it is longer than 4194304 bytes"
    assert str(reasons[12]).startswith("reading it killed the process (SIG")
    assert reading.unreadable == []
    first = reading.records[0]
    assert first.result.point == made.points[0]
    assert first.result.samples_s == (1e-6,)
    assert first.result.status is Status.OK
    assert first.canonical == tiny_space.canonical(made.points[0])
    assert first.conditions["imported"] == "metaschedule"
    assert first.conditions["line"] == 1
    assert first.run_id is None


def deadly_line(line: str) -> str:
    """A line with a tile of no iterations: a division by zero within TVM kills the process."""
    content = json.loads(line)
    instructions, decisions = content[1][0]
    position = len(instructions)
    loops = next(i for i in reversed(instructions) if i[0] == "GetLoops")[3]
    factors = [f"v{900 + n}" for n in range(4)]
    instructions.append(["SamplePerfectTile", [loops[0]], [4, 0], factors])
    decisions.append([position, [0, 0, 0, 0]])
    return json.dumps(content)


@pytest.mark.slow
def test_importing_twice_adds_nothing(made: Made, tmp_path: Path) -> None:
    first, _ = imported(made.directory, tmp_path / "r.sqlite")
    again, reading = imported(made.directory, tmp_path / "r.sqlite")
    assert (first.added, first.duplicates) == (4, 0)
    assert (again.added, again.duplicates) == (0, 4)
    assert len(reading.records) == 4


@pytest.mark.slow
def test_records_of_another_program_are_left_out(tmp_path: Path, space_of: Any) -> None:
    other = "gmm:1x32x32x16"
    space = space_of(other)
    made = Made(tmp_path / "database", resolve(other), space, [space.default(0)])
    report, _ = imported(made.directory, tmp_path / "r.sqlite")
    assert [(line.kind, line.reason) for line in report.left_out] == [
        ("other", "it is of another program")
    ]


def test_a_directory_without_a_database_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError) as raised:
        imported(tmp_path, tmp_path / "r.sqlite")
    assert str(raised.value) == (
        f"{tmp_path} holds no MetaSchedule database: expected {WORKLOADS} and {RECORDS}"
    )
