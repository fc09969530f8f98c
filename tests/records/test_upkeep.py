"""Merging and pruning stores."""

from pathlib import Path

import pytest

from schedenv.errors import InputError
from schedenv.measure import Status
from schedenv.records import Archive, RecordStore, Run, RunRecords, Selection
from schedenv.records.upkeep import merge, prunable

from .helpers import ELSEWHERE, HERE, VERSION_1, a_result, add, execute, written


def canonicals(path: Path) -> list[str]:
    with Archive(path) as archive:
        return [record.canonical for record in archive.read().records]


def merged(target: Path, *sources: Path) -> list[tuple[int, int, int]]:
    archives = [Archive(source) for source in sources]
    with Archive(target) as archive:
        reports = merge(archives, archive)
    for one in archives:
        one.close()
    return [(r.added, r.duplicates, len(r.unreadable)) for r in reports]


# -- merge ------------------------------------------------------------------------------------


def test_copies_of_one_measurement_are_merged_once(tmp_path: Path) -> None:
    one, other = written(tmp_path / "one", 3), written(tmp_path / "other", 5)
    assert merged(tmp_path / "all", one, other) == [(3, 0, 0), (2, 3, 0)]
    assert canonicals(tmp_path / "all") == [f"form-{number}" for number in range(5)]
    assert merged(tmp_path / "all", one, other) == [(0, 3, 0), (0, 5, 0)]


def test_another_measurement_of_the_same_program_is_not_a_copy(tmp_path: Path) -> None:
    for name, samples in (("one", (1e-3,)), ("other", (1.1e-3,))):
        with RecordStore(tmp_path / name, HERE) as store:
            result = a_result(0)
            changed = type(result)(point=result.point, status=Status.OK, samples_s=samples)
            store.append("task-a", "gmm", "form-0", changed, 0.0, {})
    assert merged(tmp_path / "all", tmp_path / "one", tmp_path / "other") == [(1, 0, 0), (1, 0, 0)]


def test_hardware_is_kept_apart(tmp_path: Path) -> None:
    here, there = written(tmp_path / "here", 2), written(tmp_path / "there", 2, ELSEWHERE)
    assert merged(tmp_path / "all", here, there) == [(2, 0, 0), (2, 0, 0)]
    for fingerprint in (HERE, ELSEWHERE):
        with RecordStore(tmp_path / "all", fingerprint, allow_foreign=True) as store:
            assert len(store.records()) == 2


def test_runs_come_along_and_rows_that_cannot_be_read_stay(tmp_path: Path) -> None:
    run = Run("r1", "task-a", "gmm", "random", 3, "host", {"trials": 5}, "2026-01-01T00:00:00")
    with RecordStore(tmp_path / "one", HERE) as store:
        records = RunRecords(store, run)
        records.append("task-a", "gmm", "form-0", a_result(0), 0.5, {})
        records.append("task-a", "gmm", "form-1", a_result(1), 0.5, {})
    execute(tmp_path / "one", "UPDATE records SET result = '{' WHERE id = 2")
    assert merged(tmp_path / "all", tmp_path / "one") == [(1, 0, 1)]
    with Archive(tmp_path / "all") as archive:
        assert archive.runs() == {"r1": run}
        assert [record.run_id for record in archive.read().records] == ["r1"]


def test_an_old_store_is_merged_too(tmp_path: Path) -> None:
    old = tmp_path / "old.sqlite"
    old.write_bytes(VERSION_1.read_bytes())
    assert merged(tmp_path / "all", old) == [(10, 0, 0)]


def test_a_store_is_not_merged_into_itself(tmp_path: Path) -> None:
    path = written(tmp_path / "one", 1)
    with pytest.raises(InputError) as raised:
        merged(path, path)
    assert str(raised.value) == f"{path} is both a source and the target; choose another --to"


# -- prune ------------------------------------------------------------------------------------


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """Two tasks with four timed records each, the fastest first, and a failure each."""
    path = tmp_path / "mixed.sqlite"
    with RecordStore(path, HERE) as store:
        for task in ("task-a", "task-b"):
            for number in range(4):
                add(store, number, task)
            add(store, 9, task, Status.CRASH)
    return path


def going(path: Path, selection: Selection, keep_best: int | None = None) -> list[int]:
    with Archive(path) as archive:
        return [record.id for record in prunable(archive, selection, keep_best)]


def test_every_condition_narrows_the_choice(mixed: Path) -> None:
    assert going(mixed, Selection(statuses=["crash"])) == [5, 10]
    assert going(mixed, Selection(statuses=["crash"], task="task-b")) == [10]
    assert going(mixed, Selection(before="1999-01-01T00:00:00+00:00")) == []
    assert going(mixed, Selection(before="2999-01-01T00:00:00+00:00", task="task-a")) == [
        1, 2, 3, 4, 5,
    ]  # fmt: skip


def test_the_fastest_of_each_task_are_kept(mixed: Path) -> None:
    assert going(mixed, Selection(), keep_best=2) == [3, 4, 5, 8, 9, 10]
    assert going(mixed, Selection(task="task-a"), keep_best=1) == [2, 3, 4, 5]
    assert going(mixed, Selection(), keep_best=0) == list(range(1, 11))


def test_what_is_deleted_is_gone_and_gives_its_space_back(tmp_path: Path) -> None:
    path = written(tmp_path / "r.sqlite", 400)
    before = path.stat().st_size
    with Archive(path) as archive:
        archive.delete(list(range(2, 400)))
        assert [record.id for record in archive.read().records] == [1, 400]
    assert path.stat().st_size < before / 4


@pytest.mark.parametrize(
    ("keep_best", "message"),
    [
        (
            None,
            "nothing says what to delete; give --status, --task, --agent, --hardware, "
            "--older-than or --keep-best",
        ),
        (-1, "expected --keep-best of 0 or more, got -1"),
    ],
)
def test_a_pruning_without_a_condition_is_refused(
    keep_best: int | None, message: str, mixed: Path
) -> None:
    with pytest.raises(InputError) as raised:
        going(mixed, Selection(), keep_best)
    assert str(raised.value) == message
