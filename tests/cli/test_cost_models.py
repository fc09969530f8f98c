"""`schedenv collect` and `schedenv fit`: from measurements on this machine to a saved model."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from schedenv.costmodel import load_model
from schedenv.hardware import Hardware
from schedenv.measure.table_file import write_table
from schedenv.records import Archive, Selection
from schedenv.space import Space
from schedenv.tasks import resolve

from ..recorded_table import make_table
from .conftest import Command

TASKS = ("gmm:1x16x16x16", "gmm:1x16x32x16")


@pytest.fixture(scope="module")
def collected(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where results are collected, once for all tests."""
    return tmp_path_factory.mktemp("collected")


@pytest.fixture(scope="module")
def tables(
    tmp_path_factory: pytest.TempPathFactory,
    hardware: Hardware,
    space_of: Callable[[str], Space],
) -> tuple[Path, Path]:
    """Two recorded tables."""
    folder = tmp_path_factory.mktemp("tables")
    paths = (folder / "one.parquet", folder / "two.parquet")
    for spec, path in zip(TASKS, paths, strict=True):
        write_table(make_table(resolve(spec), space_of(spec), hardware), path)
    return paths


def stored(out: Path) -> list[tuple[str, str]]:
    with Archive(out / "records.sqlite") as archive:
        return [(r.task_name, r.canonical) for r in archive.read(Selection()).records]


@pytest.mark.slow
def test_collected_results_are_stored_resumed_and_fitted(
    schedenv: Command, collected: Path, tmp_path: Path
) -> None:
    words = ("collect", *TASKS, "--points", 8, "--out", collected)
    done = schedenv(*words, "--json")
    assert done.code == 0, done.err
    summary = json.loads(done.out)
    assert summary["tasks"] == dict.fromkeys(TASKS, 8)
    assert summary["new"] == 16
    first = stored(collected)
    assert len(first) == len(set(first)) == 16

    again = schedenv(*words)
    assert again.code == 2
    assert (
        f"{collected / 'records.sqlite'} already holds what was collected for {', '.join(TASKS)} "
        "with seed 0; continue with --resume, or choose another --out or --seed"
    ) in " ".join(again.err.split())

    more = schedenv("collect", *TASKS, "--points", 12, "--out", collected, "--resume")
    assert more.code == 0, more.err
    assert "24 results of 2 tasks" in more.out
    assert "8 new" in more.out
    assert stored(collected)[:16] == first
    assert len(set(stored(collected))) == 24

    model = tmp_path / "model"
    fitted = schedenv("fit", collected, "--held-out", TASKS[1], "--out", model, "--json")
    assert fitted.code == 0, fitted.err
    summary = json.loads(fitted.out)
    assert (summary["records"], summary["tasks"]) == (12, [TASKS[0]])
    assert summary["held_out"][TASKS[1]]["points"] == 12
    assert load_model(model).fitted().metrics == summary["held_out"]

    shown = schedenv("fit", collected, "--kind", "trees", "--held-out", TASKS[1], "--out", model)
    assert shown.code == 0, shown.err
    assert "12 points of 1 tasks to learn from, 1 tasks held out" in shown.out
    assert "Kendall tau" in shown.out
    assert load_model(model).kind == "trees"


@pytest.mark.parametrize("kind", ["tokens", "trees"])
def test_a_table_is_fitted_and_the_model_judged(
    schedenv: Command, kind: str, tables: tuple[Path, Path], tmp_path: Path
) -> None:
    fitted = schedenv(
        "fit", *tables, "--kind", kind, "--held-out", TASKS[1], "--out", tmp_path, "--json"
    )
    assert fitted.code == 0, fitted.err
    summary = json.loads(fitted.out)
    assert summary["kind"] == kind
    assert summary["tasks"] == [TASKS[0]]
    assert list(summary["held_out"]) == [TASKS[1]]
    assert summary["mean"] == summary["held_out"][TASKS[1]]
    assert load_model(tmp_path).fitted().metrics == summary["held_out"]


def test_without_held_out_tasks_it_says_that_nothing_is_known(
    schedenv: Command, tables: tuple[Path, Path], tmp_path: Path
) -> None:
    fitted = schedenv("fit", tables[0], "--out", tmp_path)
    assert fitted.code == 0, fitted.err
    assert "not judged: name tasks or families with --held-out to know its quality" in fitted.out


def test_a_held_out_task_that_is_not_there_is_refused(
    schedenv: Command, tables: tuple[Path, Path], tmp_path: Path
) -> None:
    done = schedenv("fit", *tables, "--held-out", "gmn", "--out", tmp_path)
    assert done.code == 2
    assert "unknown held-out task or family 'gmn'; did you mean 'gmm'" in done.err


@pytest.mark.slow
def test_resuming_what_was_not_begun_is_refused(schedenv: Command, tmp_path: Path) -> None:
    done = schedenv("collect", TASKS[0], "--out", tmp_path / "x", "--resume")
    assert done.code == 2
    assert "holds nothing that was collected for these tasks with seed 0" in done.err


def test_a_source_that_is_not_there_is_refused(schedenv: Command, tmp_path: Path) -> None:
    done = schedenv("fit", tmp_path / "none", "--out", tmp_path / "model")
    assert done.code == 2
    assert "expected a record store, a run directory or a URL" in done.err


def test_an_unknown_kind_is_refused(schedenv: Command, tmp_path: Path) -> None:
    done = schedenv("fit", tmp_path, "--kind", "tree", "--out", tmp_path / "model")
    assert done.code == 2
    assert "unknown cost model 'tree'; did you mean 'trees'?" in done.err
