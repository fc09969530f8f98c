"""Training data from results, stores and tables."""

import math
from pathlib import Path

import numpy as np
import pytest
from msgspec.structs import replace

from schedenv.costmodel import TaskData, TrainingData
from schedenv.costmodel.data import split_points
from schedenv.errors import InputError, UnknownNameError
from schedenv.hardware import Hardware
from schedenv.measure import Result, Status
from schedenv.records import Record
from schedenv.space import UNTUNED, Space
from schedenv.tasks import Task

from ..recorded_table import make_table


@pytest.fixture
def results(tiny_space: Space) -> list[Result]:
    rng = np.random.default_rng(0)
    points = [tiny_space.sample(rng) for _ in range(5)]
    return [
        Result(point=UNTUNED, status=Status.OK, estimate_s=9e-6),
        Result(point=points[0], status=Status.OK, estimate_s=2e-6),
        Result(point=points[1], status=Status.CRASH, reason="as scripted"),
        Result(point=points[2], status=Status.NOISY, reason="as scripted"),
        Result(point=points[3], status=Status.CANCELLED, reason="as scripted"),
        Result(point=points[4], status=Status.OK, estimate_s=4e-6),
    ]


def record(task: Task, hardware: Hardware, result: Result, **changes: object) -> Record:
    stored = Record(
        task.content_hash, task.name, hardware.fingerprint, str(result.point), result, 0.0
    )
    return stored._replace(**changes)  # type: ignore[arg-type]


def test_failures_are_kept_and_what_says_nothing_is_not(
    tiny_task: Task, tiny_space: Space, results: list[Result]
) -> None:
    entry = TaskData.of(tiny_task, tiny_space, results)
    assert entry.points == (results[1].point, results[2].point, results[5].point)
    assert entry.estimates_s.tolist() == [2e-6, math.inf, 4e-6]
    assert entry.throughputs.tolist() == [1.0, 0.0, 0.5]


def test_records_of_other_machines_and_spaces_are_left_out(
    tiny_task: Task, hardware: Hardware, results: list[Result]
) -> None:
    records = [record(tiny_task, hardware, result) for result in results]
    foreign = [
        record(tiny_task, hardware, results[1], fingerprint="other"),
        record(tiny_task, hardware, results[1], space_version=99),
    ]
    assert TrainingData.from_records(records + foreign, hardware).count == 3
    with pytest.raises(InputError) as refused:
        TrainingData.from_records(foreign, hardware)
    assert str(refused.value) == (
        "expected results of at least one task, got none that worked; measure some with: "
        "schedenv collect SUITE --points 64 --out DIR"
    )


def test_a_program_that_only_a_store_names_is_not_imported(
    tiny_task: Task, hardware: Hardware, results: list[Result], tmp_path: Path
) -> None:
    evil = tmp_path / "evil.py"
    evil.write_text("raise SystemExit('imported')")
    stored = record(tiny_task, hardware, results[1], task_name=f"{evil}:main")
    with pytest.raises(InputError) as refused:
        TrainingData.from_records([stored], hardware)
    assert str(refused.value) == (
        f"the results of {evil}:main are of a program in a file, which is not imported just "
        "because a store names it; pass it with --task FILE:NAME"
    )
    assert TrainingData.from_records([stored], hardware, [tiny_task]).count == 1


def test_a_name_that_stands_for_another_program_now_is_refused(
    tiny_task: Task, hardware: Hardware, results: list[Result]
) -> None:
    stored = record(tiny_task, hardware, results[1], task_hash="0" * 16)
    with pytest.raises(InputError) as refused:
        TrainingData.from_records([stored], hardware)
    assert str(refused.value) == (
        f"{tiny_task.name} is another program now (hash {tiny_task.content_hash}) than the one "
        "that was measured (hash 0000000000000000); measure it again"
    )


def test_a_table_gives_all_its_points(
    tiny_task: Task, tiny_space: Space, hardware: Hardware
) -> None:
    table = make_table(tiny_task, tiny_space, hardware)
    data = TrainingData.from_tables([table])
    assert data.tasks[0].points == tuple(row.point for row in table.rows)
    assert data.hardware == hardware
    assert int((~data.tasks[0].ok).sum()) == sum(row.estimate_s is None for row in table.rows)


def test_tables_of_two_machines_are_refused(
    tiny_task: Task, tiny_space: Space, hardware: Hardware
) -> None:
    table = make_table(tiny_task, tiny_space, hardware)
    there = Hardware(**{**vars(hardware), "cores": 77})
    other = type(table)(replace(table.info, hardware=there), table.rows)
    names = ", ".join(sorted([hardware.fingerprint, there.fingerprint]))
    with pytest.raises(InputError) as refused:
        TrainingData.from_tables([table, other])
    assert str(refused.value) == (
        f"expected tables of one machine, got 2 ({names}); fit one model for each"
    )


def test_a_table_of_another_space_version_is_refused(
    tiny_task: Task, tiny_space: Space, hardware: Hardware
) -> None:
    table = make_table(tiny_task, tiny_space, hardware)
    old = type(table)(replace(table.info, space_version=99), table.rows)
    with pytest.raises(InputError) as refused:
        TrainingData.from_tables([old])
    assert str(refused.value) == (
        f"{tiny_task.name} has points of space version 99; this schedenv uses version 1. Record "
        "it again with schedenv record"
    )


def test_entries_of_one_task_are_joined(
    tiny_task: Task, tiny_space: Space, hardware: Hardware, results: list[Result]
) -> None:
    one = TaskData.of(tiny_task, tiny_space, results[:2])
    other = TaskData.of(tiny_task, tiny_space, [*results[2:], replace(results[1], estimate_s=1e-6)])
    joined = TrainingData.of(hardware, [one, other]).tasks
    assert [entry.estimates_s.tolist() for entry in joined] == [[1e-6, math.inf, 4e-6]]


def test_tasks_are_held_out_whole_by_name_or_by_family(data: TrainingData) -> None:
    learned, held = data.split(["gmm:1x64x48x32"])
    assert [entry.task.name for entry in held] == ["gmm:1x64x48x32"]
    assert len(learned.tasks) == 3
    learned, held = data.split(["gmm"])
    assert {entry.task.family for entry in held} == {"gmm"}
    assert {entry.task.family for entry in learned.tasks} == {"c1d"}
    assert data.split([])[1] == ()


def test_holding_out_what_is_not_there_or_all_is_refused(data: TrainingData) -> None:
    with pytest.raises(UnknownNameError, match="unknown held-out task or family 'gmn'"):
        data.split(["gmn"])
    with pytest.raises(InputError) as refused:
        data.split(["gmm", "c1d"])
    assert str(refused.value) == (
        "all 4 tasks of the data are held out; expected at least one to train on"
    )


def test_points_put_aside_are_not_learned_from(data: TrainingData) -> None:
    entry = data.tasks[0]
    learned, aside = split_points(entry, 0.15, np.random.default_rng(0))
    assert set(learned.points) | set(aside.points) == set(entry.points)
    assert not set(learned.points) & set(aside.points)
    assert len(aside.points) == round(0.15 * len(entry.points))
    times = dict(zip(entry.points, entry.estimates_s, strict=True))
    assert aside.estimates_s.tolist() == [times[point] for point in aside.points]


def test_throughputs_of_a_part_are_relative_to_the_best_of_the_task(data: TrainingData) -> None:
    entry = data.tasks[0]
    slow = np.argsort(entry.estimates_s)[20:30]
    assert entry.part(slow).part(np.arange(5)).throughputs.tolist() == (
        entry.throughputs[slow[:5]].tolist()
    )


def test_few_points_are_all_learned_from(data: TrainingData) -> None:
    few = data.tasks[0].part(np.arange(6))
    assert split_points(few, 0.15, np.random.default_rng(0)) == (few, few)
