"""Recording a sub-space: a real space, a real store, and a scripted machine."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import pytest

from schedenv.errors import InputError, MachineError, OutputDirError
from schedenv.measure import Result, Status
from schedenv.measure.table_file import read_table
from schedenv.space import UNTUNED, Point, Restriction, Space, fit_restriction
from schedenv.tasks import Task
from schedenv.tuning.groups import Group, read_groups
from schedenv.tuning.recording import GROUPS, RecordProgress, RecordRequest, record

from .synthetic import ScriptedMeasurer, bowl, failed, ok

POINTS = 40


class ScriptedLoaded:
    """A kernel that always takes what its result says."""

    def __init__(self, result: Result) -> None:
        self.result = result

    def sample_s(self) -> float:
        assert self.result.estimate_s is not None
        return self.result.estimate_s


class ScriptedMachine(ScriptedMeasurer):
    """A measurer that keeps kernels loaded too; the untuned program has no canonical form."""

    def __init__(self, space: Space, judge: Callable[[Point], Result]) -> None:
        super().__init__(space, judge)
        self.loaded: list[Point] = []

    def load(self, points: Sequence[Point]) -> list[ScriptedLoaded]:
        self.loaded += points
        return [ScriptedLoaded(self.judge(point)) for point in points]

    def slowdown(self) -> float:
        return 1.0

    def _measure(self, point: Point, on_result: Callable[[Result], None] | None) -> Result:
        if point != UNTUNED:
            return super()._measure(point, on_result)
        result = self.judge(point)
        if on_result is not None:
            on_result(result)
        return result


class Bench:
    """Records one task on scripted machines, all of which are remembered."""

    def __init__(self, task: Task, space: Space, out: Path) -> None:
        self.space, self.out = space, out
        self.request = RecordRequest(
            task, fit_restriction(space, POINTS), out, POINTS, seed=0, looks=3
        )
        self.judge: Callable[[Point], Result] = lambda point: ok(point, bowl(point))
        self.machines: list[ScriptedMachine] = []
        self.opened: list[tuple[int, int | None]] = []

    @contextlib.contextmanager
    def open(self, seed: int, workers: int | None) -> Iterator[ScriptedMachine]:
        self.opened.append((seed, workers))
        self.machines.append(ScriptedMachine(self.space, self.judge))
        yield self.machines[-1]

    def measured(self) -> list[Point]:
        return [point for machine in self.machines for point in machine.measured]


@pytest.fixture
def bench(tiny_task: Task, tiny_space: Space, tmp_path: Path) -> Bench:
    return Bench(tiny_task, tiny_space, tmp_path / "gmm.parquet")


def replace(request: RecordRequest, **changes: object) -> RecordRequest:
    import dataclasses

    return dataclasses.replace(request, **changes)


def test_every_point_gets_a_row_and_the_optimum_is_the_fastest(bench: Bench) -> None:
    table = record(bench.request, None, bench.open)
    assert read_table(bench.out) == table
    points = bench.request.restriction.points(bench.space)
    assert [row.point for row in table.rows] == points
    best = min(points, key=lambda point: ok(point, bowl(point)).estimate_s or 0)
    assert table.info.optimum.point == str(best)
    assert table.info.optimum.is_finalist
    assert table.info.components == 1
    assert table.by_point[best].estimate_s == pytest.approx(bowl(best), rel=0.01)
    assert table.info.untuned_s == pytest.approx(bowl(UNTUNED), rel=0.01)
    assert {row.canonical for row in table.rows} == {bench.space.canonical(p) for p in points}


def test_every_program_is_measured_once_and_then_timed_in_several_passes(bench: Bench) -> None:
    table = record(bench.request, None, bench.open)
    programs = {row.canonical for row in table.rows}
    assert len(bench.machines[0].measured) == len(programs)
    passes = [machine.loaded for machine in bench.machines[1:4]]
    assert passes[0] != passes[1] != passes[2]
    for loaded in passes:
        assert set(loaded) == {UNTUNED, *bench.machines[0].measured}
    # Fresh workers and inputs for every pass; one worker holds all kernels of a group.
    assert bench.opened == [(0, None), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1)]
    finalists = [row for row in table.rows if row.finalist]
    # The thirty fastest, and those references that are not among them.
    assert 30 <= len(finalists) < 36
    best = sorted(table.rows, key=lambda row: row.estimate_s or 1.0)[:30]
    assert all(row.finalist for row in best)
    for row in table.rows:
        assert len(row.looks_s) >= 3 + 2 * row.finalist


def test_failures_are_rows_too(bench: Bench) -> None:
    broken = bench.request.restriction.points(bench.space)[5]
    bench.judge = lambda p: failed(p) if p == broken else ok(p, bowl(p))
    table = record(bench.request, None, bench.open)
    # Twice, lest the machine was to blame.
    assert bench.measured().count(broken) == 2
    assert all(bench.measured().count(row.point) <= 1 for row in table.rows if row.point != broken)
    row = table.by_point[broken]
    assert row.status is Status.BUILD_ERROR
    assert row.reason == "as scripted"
    assert row.estimate_s is None


@pytest.mark.parametrize(("stage", "last"), [("measure", 1), ("measure", 17), ("compare", 1)])
def test_an_interrupted_recording_goes_on_and_measures_nothing_twice(
    stage: str, last: int, bench: Bench, tiny_task: Task, tiny_space: Space, tmp_path: Path
) -> None:
    whole = Bench(tiny_task, tiny_space, tmp_path / "whole.parquet")
    straight = record(whole.request, None, whole.open)

    def cut(progress: RecordProgress) -> None:
        if progress.stage == stage and progress.fresh >= last:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(bench.request, cut, bench.open)
    assert not bench.out.exists()
    resumed = record(replace(bench.request, resume=True), None, bench.open)
    assert sorted(bench.measured()) == sorted(whole.measured())
    loaded = [point for machine in bench.machines for point in machine.loaded]
    assert len(loaded) == sum(len(machine.loaded) for machine in whole.machines)
    assert resumed.rows == straight.rows


def test_a_group_that_was_cut_short_is_timed_again(bench: Bench) -> None:
    def cut(progress: RecordProgress) -> None:
        if progress.stage == "finals":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(bench.request, cut, bench.open)
    path = bench.request.records_dir / GROUPS
    lines = path.read_bytes().splitlines(keepends=True)
    assert len(lines) == 3
    path.write_bytes(b"".join(lines[:2]) + lines[2][:100])
    assert read_groups(path) == [msgspec.json.decode(line, type=Group) for line in lines[:2]]
    record(replace(bench.request, resume=True), None, bench.open)
    assert path.read_bytes().startswith(b"".join(lines))


def test_groups_that_are_damaged_are_named(bench: Bench) -> None:
    def cut(progress: RecordProgress) -> None:
        if progress.stage == "finals":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(bench.request, cut, bench.open)
    path = bench.request.records_dir / GROUPS
    path.write_bytes(b"{}\n" + path.read_bytes())
    with pytest.raises(OutputDirError) as raised:
        record(replace(bench.request, resume=True), None, bench.open)
    assert str(raised.value) == (
        f"{path} is damaged (Object missing required field `turn`); delete it to time all kernels "
        "again, and repeat the command"
    )


def test_a_file_that_exists_is_not_overwritten(bench: Bench) -> None:
    bench.out.write_text("precious")
    with pytest.raises(OutputDirError) as raised:
        record(bench.request, None, bench.open)
    assert str(raised.value) == f"--out {bench.out} exists already; choose another file"
    assert bench.out.read_text() == "precious"


def test_another_recording_is_not_resumed(bench: Bench) -> None:
    def cut(progress: RecordProgress) -> None:
        if progress.fresh == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        record(bench.request, cut, bench.open)
    with pytest.raises(OutputDirError) as raised:
        record(replace(bench.request, resume=True, seed=9), None, bench.open)
    assert str(raised.value) == (
        f"{bench.out}.records holds a recording of seed 0, not 9; repeat the command that started "
        "it with --resume, or choose another --out"
    )
    with pytest.raises(OutputDirError) as raised:
        record(bench.request, None, bench.open)
    assert str(raised.value) == (
        f"--out {bench.out}.records already holds a run; continue it with --resume, or choose "
        "another --out"
    )


def test_more_points_than_allowed_are_refused_before_anything_is_made(bench: Bench) -> None:
    with pytest.raises(InputError) as raised:
        record(replace(bench.request, limit=7), None, bench.open)
    assert str(raised.value) == (
        "the restriction keeps more than 7 points; narrow its patterns, or allow more with --points"
    )
    assert not bench.request.records_dir.exists()


def test_without_one_candidate_that_works_there_is_no_table(bench: Bench) -> None:
    bench.judge = lambda p: ok(p, 1e-6) if p == UNTUNED else failed(p)
    with pytest.raises(MachineError) as raised:
        record(bench.request, None, bench.open)
    assert str(raised.value) == (
        "no table of gmm:1x32x32x32: every candidate failed (build_error: as scripted); run: "
        "schedenv doctor"
    )


def test_without_the_untuned_program_there_is_no_table(bench: Bench) -> None:
    bench.judge = lambda p: failed(p) if p == UNTUNED else ok(p, 1e-6)
    with pytest.raises(MachineError) as raised:
        record(bench.request, None, bench.open)
    assert str(raised.value) == (
        "no table of gmm:1x32x32x32: the untuned program failed (build_error: as scripted); run: "
        "schedenv doctor"
    )


def test_equal_programs_are_measured_once(bench: Bench, tiny_space: Space) -> None:
    sketch = tiny_space.sketches[0]
    patterns = {
        tile.name: ",".join([str(tile.extent), *["1"] * (tile.width - 1)])
        for tile in sketch.tiles()
    }
    both = Restriction(
        {0: {**patterns, "unroll": "0|16|64|512", "vectorize": "*", "parallel": "*"}}
    )
    points = both.points(tiny_space)
    forms = {tiny_space.canonical(point) for point in points}
    assert len(forms) < len(points)
    table = record(replace(bench.request, restriction=both, limit=1000), None, bench.open)
    assert len(bench.machines[0].measured) == len(forms)
    numbers = {(row.canonical, row.estimate_s, row.samples_s) for row in table.rows}
    assert len(numbers) == len(forms)
