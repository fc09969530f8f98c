"""A run's best schedule in the hands of plain TVM."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tvm_ffi

from schedenv import hardware as hw
from schedenv import tvm_adapter
from schedenv.calibration import Peaks
from schedenv.cli import main
from schedenv.errors import ForeignRecordsError, InputError, OutputDirError
from schedenv.records.export import check_format, export_metaschedule
from schedenv.space import Point, Space
from schedenv.tasks import Task, resolve
from schedenv.tuning.tune import Request, best_point, tune

TASK = "gmm:1x64x64x64"
Export = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def task() -> Task:
    return resolve(TASK)


@pytest.fixture(scope="module")
def run(task: Task, hardware: hw.Hardware, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a finished run that beat the untuned program."""
    out = tmp_path_factory.mktemp("export") / "run"
    peaks = Peaks(
        flops_per_s=1e11,
        one_core_flops_per_s=5e10,
        copy_bytes_per_s=1e10,
        reference_s=1e-4,
        measured_at_iso="2026-01-01T00:00:00+00:00",
        fingerprint=hardware.fingerprint,
        tvm_version="0.27.0",
    )
    for trials in (12, 24, 48):
        tune(Request(task, "random", trials, None, 0, out, resume=out.exists()), peaks)
        if best_point(out) is not None:
            return out
    pytest.fail("48 random schedules, and none faster than the untuned program")


@pytest.fixture
def export(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Export:
    """`schedenv export WORD...`: exit code, stdout, stderr."""

    def run(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["schedenv", "export", *map(str, words)])
        with pytest.raises(SystemExit) as exit:
            main()
        out, err = capsys.readouterr()
        return int(exit.value.code or 0), out, err

    return run


@pytest.fixture
def database(run: Path, tmp_path: Path, export: Export) -> Path:
    """The database that `schedenv export` writes."""
    to = tmp_path / "new" / "database"
    code, out, err = export(run, "--format", "metaschedule", "--to", to)
    assert code == 0, err
    latency_us = json.loads((run / "best.json").read_text())["tuned"]["latency_us"]
    assert out == f"metaschedule database of {TASK} ({latency_us:.1f} us) written to {to}\n"
    return to


def scheduled(task: Task, run: Path, hardware: hw.Hardware) -> Any:
    """The program that the run found."""
    point = best_point(run)
    assert point is not None
    return Space(task.mod, hardware).apply(point).mod


# -- plain TVM compiles with it ---------------------------------------------------------------


def test_plain_tvm_finds_the_program_that_was_tuned(
    database: Path, run: Path, task: Task, hardware: hw.Hardware
) -> None:
    found = tvm_adapter.apply_database(task.mod, str(database), hw.target(hardware))
    assert found is not None
    assert tvm_ffi.structural_equal(found, scheduled(task, run, hardware))
    assert not tvm_ffi.structural_equal(found, task.mod)


def test_the_kernel_that_plain_tvm_builds_is_right(
    database: Path, task: Task, hardware: hw.Hardware
) -> None:
    import tvm

    target = hw.target(hardware)
    found = tvm_adapter.apply_database(task.mod, str(database), target)
    assert found is not None
    kernel = tvm_adapter.build(found, target)
    rng = np.random.default_rng(0)
    a, b = (rng.random((1, 64, 64), dtype=np.float32) for _ in range(2))
    out = tvm.runtime.tensor(np.full((1, 64, 64), np.nan, np.float32))
    kernel["main"](tvm.runtime.tensor(a), tvm.runtime.tensor(b), out)
    np.testing.assert_allclose(out.numpy(), a @ b, rtol=1e-4)


def test_a_relax_module_that_calls_the_program_gets_the_tuned_one(
    database: Path, run: Path, task: Task, hardware: hw.Hardware
) -> None:
    import tvm
    from tvm import relax

    matrix = relax.TensorType((1, 64, 64), "float32")
    builder = relax.BlockBuilder()
    x, y = (relax.Var(name, matrix) for name in "xy")
    with builder.function("main", [x, y]):
        kernel = builder.add_func(task.mod["main"].without_attr("global_symbol"), "matmul")
        builder.emit_func_output(builder.emit(relax.call_tir(kernel, [x, y], matrix)))
    module = builder.get()
    with hw.target(hardware), tvm.transform.PassContext(opt_level=3):
        applied = relax.transform.MetaScheduleApplyDatabase(str(database))(module)
    expected = scheduled(task, run, hardware)["main"]
    assert tvm_ffi.structural_equal(applied["matmul"].body, expected.body, map_free_vars=True)
    assert not tvm_ffi.structural_equal(module["matmul"].body, expected.body, map_free_vars=True)


def test_a_program_that_was_not_tuned_is_not_in_the_database(
    database: Path, hardware: hw.Hardware
) -> None:
    other = resolve("gmm:1x64x64x32").mod
    assert tvm_adapter.apply_database(other, str(database), hw.target(hardware)) is None


@pytest.mark.parametrize("spec", ["sfm:8x12", "c2d:1x6x6x4x8x3x1x1", "tbg:1x8x2x6"])
def test_any_point_of_any_family_survives_the_database(
    spec: str, hardware: hw.Hardware, tmp_path: Path
) -> None:
    task = resolve(spec)
    space = Space(task.mod, hardware)
    rng = np.random.default_rng(5)
    for number in range(3):
        point = space.sample(rng)
        directory = tmp_path / str(number)
        export_metaschedule(task, [(point, 1e-6)], hardware.fingerprint, directory)
        found = tvm_adapter.apply_database(task.mod, str(directory), hw.target(hardware))
        assert tvm_ffi.structural_equal(found, space.apply(point).mod), point


# -- refusals ---------------------------------------------------------------------------------


def test_an_unknown_format_is_refused(run: Path, tmp_path: Path, export: Export) -> None:
    to = tmp_path / "database"
    assert export(run, "--format", "csv", "--to", to) == (
        2,
        "",
        "error: expected --format metaschedule or t4 or parquet, got 'csv'\n",
    )
    assert not to.exists()
    with pytest.raises(InputError):
        check_format("")


def test_a_directory_without_a_finished_run_is_refused(tmp_path: Path, export: Export) -> None:
    assert export(tmp_path, "--to", tmp_path / "database") == (
        2,
        "",
        f"error: {tmp_path}/best.json does not exist; "
        "expected the --out directory of a finished schedenv tune\n",
    )


def test_a_run_that_found_nothing_is_refused(run: Path, tmp_path: Path, export: Export) -> None:
    edited_run(run, tmp_path / "run", point=None)
    assert export(tmp_path / "run", "--to", tmp_path / "database") == (
        2,
        "",
        f"error: the run in {tmp_path}/run found nothing faster than the untuned program, "
        "so there is no schedule to export; tune with a larger budget\n",
    )


def test_a_run_of_a_program_that_has_changed_is_refused(
    run: Path, task: Task, tmp_path: Path, export: Export
) -> None:
    edited_run(run, tmp_path / "run", task_hash="0" * 16)
    assert export(tmp_path / "run", "--to", tmp_path / "database") == (
        2,
        "",
        f"error: {TASK} is not the program that was tuned any more "
        f"(hash {task.content_hash}, tuned {'0' * 16}); tune it again\n",
    )


def test_a_run_of_other_hardware_is_refused(
    run: Path, hardware: hw.Hardware, tmp_path: Path, export: Export
) -> None:
    edited_run(run, tmp_path / "run", hardware="elsewhere-9c")
    assert export(tmp_path / "run", "--to", tmp_path / "database") == (
        1,
        "",
        f"error: the run was made on elsewhere-9c, this machine is {hardware.fingerprint}; "
        "export on the machine that the schedule was tuned on\n",
    )
    assert not (tmp_path / "database").exists()
    with pytest.raises(ForeignRecordsError):
        export_metaschedule(
            resolve(TASK), [(Point(0, ()), 1e-6)], "elsewhere-9c", tmp_path / "database"
        )


def test_a_database_that_is_there_is_not_touched(database: Path, run: Path, export: Export) -> None:
    before = {path.name: path.read_bytes() for path in database.iterdir()}
    assert export(run, "--to", database) == (
        2,
        "",
        f"error: --to {database} already holds a database; choose another --to\n",
    )
    assert {path.name: path.read_bytes() for path in database.iterdir()} == before


def test_a_target_below_a_file_is_refused(
    task: Task, hardware: hw.Hardware, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("mine")
    to = tmp_path / "file" / "database"
    message = f"--to {to} cannot be created (Not a directory)"
    with pytest.raises(OutputDirError, match=f"^{re.escape(message)}$"):
        export_metaschedule(task, [(Point(0, ()), 1e-6)], hardware.fingerprint, to)


def edited_run(run: Path, copy: Path, **changes: Any) -> None:
    """A copy of a run with other values in its best.json."""
    best = json.loads((run / "best.json").read_text())
    copy.mkdir()
    (copy / "best.json").write_text(json.dumps({**best, **changes}))
