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
from schedenv import tvm_adapter, tvm_database
from schedenv.calibration import Peaks
from schedenv.cli import main
from schedenv.errors import ForeignRecordsError, InputError, OutputDirError
from schedenv.measure import Phases, Result, Status
from schedenv.records import Record
from schedenv.records.export import check_format, export_metaschedule
from schedenv.records.t4 import configuration, export_t4
from schedenv.space import Point, Space
from schedenv.tasks import Task, resolve
from schedenv.tuning.tune import Request, best_point, tune

TASK = "gmm:1x64x64x64"
Export = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def task() -> Task:
    return resolve(TASK)


@pytest.fixture(scope="module")
def run(
    task: Task,
    hardware: hw.Hardware,
    tmp_path_factory: pytest.TempPathFactory,
    short_finals: None,
) -> Path:
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


@pytest.mark.slow
def test_plain_tvm_finds_the_program_that_was_tuned(
    database: Path, run: Path, task: Task, hardware: hw.Hardware
) -> None:
    found = tvm_database.apply_database(task.mod, str(database), hw.target(hardware))
    assert found is not None
    assert tvm_ffi.structural_equal(found, scheduled(task, run, hardware))
    assert not tvm_ffi.structural_equal(found, task.mod)


def test_the_kernel_that_plain_tvm_builds_is_right(
    database: Path, task: Task, hardware: hw.Hardware
) -> None:
    import tvm

    target = hw.target(hardware)
    found = tvm_database.apply_database(task.mod, str(database), target)
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
    assert tvm_database.apply_database(other, str(database), hw.target(hardware)) is None


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
        found = tvm_database.apply_database(task.mod, str(directory), hw.target(hardware))
        assert tvm_ffi.structural_equal(found, space.apply(point).mod), point


def test_the_best_few_go_along_and_plain_tvm_still_takes_the_winner(
    run: Path, task: Task, hardware: hw.Hardware, tmp_path: Path, export: Export
) -> None:
    to = tmp_path / "database"
    code, out, err = export(run, "--best", 4, "--to", to)
    assert code == 0, err
    lines = (to / "database_tuning_record.json").read_text().splitlines()
    times = [json.loads(line)[1][1][0] for line in lines]
    assert 1 <= len(times) <= 4
    assert min(times) == times[0]
    if len(times) > 1:
        assert f", and {len(times) - 1} more) written to {to}" in out
    found = tvm_database.apply_database(task.mod, str(to), hw.target(hardware))
    assert tvm_ffi.structural_equal(found, scheduled(task, run, hardware))


# -- T4 ---------------------------------------------------------------------------------------

# The fields of KernelTuner's schema T4 1.0.0, and their JSON types.
RESULT_FIELDS = {
    "timestamp": str,
    "configuration": dict,
    "objectives": list,
    "times": dict,
    "invalidity": str,
    "correctness": (int, float),
    "measurements": list,
}
REQUIRED = {"configuration", "times", "invalidity", "correctness"}
TIMES = {
    "compilation_time": (int, float),
    "runtimes": list,
    "framework": (int, float),
    "search_algorithm": (int, float),
    "validation": (int, float),
}
INVALIDITY = {"timeout", "compile", "runtime", "correctness", "constraints", "correct"}
MEASUREMENT = {"name": str, "value": (int, float, str, list), "unit": str}
METADATA = {
    "metadata.hardware.hardware_description": list,
    "metadata.hardware.operating_system": str,
    "metadata.environment.device_query": dict,
    "metadata.environment.requirements": list,
}


def check_fields(content: dict[str, Any], fields: dict[str, Any]) -> None:
    for name, value in content.items():
        assert name in fields, name
        assert isinstance(value, fields[name]), name


def check_t4(results: dict[str, Any]) -> None:
    assert set(results) == {"schema_version", "results"}
    assert re.fullmatch(r"[0-9]+\.[0-9]+\.[0-9]+", results["schema_version"])
    for result in results["results"]:
        check_fields(result, RESULT_FIELDS)
        assert set(result) >= REQUIRED
        check_fields(result["times"], TIMES)
        assert result["invalidity"] in INVALIDITY
        for measurement in result["measurements"]:
            check_fields(measurement, MEASUREMENT)


def record(number: int, status: Status, point: Point) -> Record:
    ok = status is Status.OK
    result = Result(
        point=point,
        status=status,
        reason=None if ok else f"an example of {status.value}",
        samples_s=(2e-6, 1e-6) if ok else (),
        estimate_s=1.25e-6 if ok else None,
        phases=Phases(apply_s=0.25, build_s=0.5, jit_s=0.25, verify_s=0.5, run_s=1.0),
    )
    conditions = {"tvm": "0.27.0", "schedenv": "0.1.0"}
    return Record("hash", TASK, "here", f"form-{number}", result, 1.0, conditions=conditions)


def test_every_status_has_its_word_in_t4(task: Task, hardware: hw.Hardware, tmp_path: Path) -> None:
    space = Space(task.mod, hardware)
    records = [record(n, status, space.default(1)) for n, status in enumerate(Status)]
    export_t4(records, space, hardware, tmp_path)
    results = json.loads((tmp_path / "results.json").read_text())
    check_t4(results)
    words = {s: r["invalidity"] for s, r in zip(Status, results["results"], strict=True)}
    assert words == {
        Status.OK: "correct",
        Status.CONSTRAINT: "constraints",
        Status.BUILD_ERROR: "compile",
        Status.BUILD_TIMEOUT: "timeout",
        Status.RUN_ERROR: "runtime",
        Status.RUN_TIMEOUT: "timeout",
        Status.CRASH: "runtime",
        Status.WRONG_RESULT: "correctness",
        Status.NOISY: "runtime",
        Status.CANCELLED: "runtime",
    }
    first = results["results"][0]
    assert first["times"] == {
        "compilation_time": 1000.0,
        "runtimes": [0.002, 0.001],
        "validation": 500.0,
    }
    assert {m["name"]: m["value"] for m in first["measurements"]} == {
        "status": "ok",
        "run_time": 1000.0,
        "time": pytest.approx(0.00125),
    }
    metadata = json.loads((tmp_path / "metadata.json").read_text())
    assert set(metadata) == {"schema_version", "metadata"}
    flat = {
        f"metadata.{group}.{name}": value
        for group, fields in metadata["metadata"].items()
        for name, value in fields.items()
    }
    check_fields(flat, METADATA)
    assert flat["metadata.environment.requirements"] == ["apache-tvm==0.27.0", "schedenv==0.1.0"]


def test_a_configuration_tells_every_decision_of_a_point(task: Task, hardware: hw.Hardware) -> None:
    space = Space(task.mod, hardware)
    rng = np.random.default_rng(0)
    points = {space.sample(rng) for _ in range(50)}
    named = {tuple(sorted(configuration(space, point).items())) for point in points}
    assert len(named) == len(points)


def test_a_run_is_exported_to_t4_and_parquet(run: Path, tmp_path: Path, export: Export) -> None:
    pq = pytest.importorskip("pyarrow.parquet", reason="pip install 'schedenv[tables]'")
    to = tmp_path / "exported"
    for format in ("t4", "parquet"):
        code, out, err = export(run, "--format", format, "--to", to)
        assert code == 0, err
        assert re.fullmatch(rf"\d+ records of {TASK} written to {re.escape(str(to))}\n", out)
    results = json.loads((to / "results.json").read_text())
    check_t4(results)
    rows = pq.read_table(to / "records.parquet").to_pylist()
    assert len(rows) == len(results["results"]) >= 12
    assert {row["agent"] for row in rows} == {"random"}
    assert {row["task"] for row in rows} == {TASK}
    for row, result in zip(rows, results["results"], strict=True):
        assert [s * 1e3 for s in row["samples_s"]] == result["times"]["runtimes"]
        assert row["sketch"] == result["configuration"]["sketch"]
    assert export(run, "--format", "parquet", "--to", to) == (
        2,
        "",
        f"error: --to {to} already holds records.parquet; choose another --to\n",
    )


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
