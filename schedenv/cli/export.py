"""The command `schedenv export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer

from schedenv.errors import InputError, OutputDirError
from schedenv.hardware import Hardware
from schedenv.records import Archive, Record, Run, Selection
from schedenv.records.export import FORMATS, check_format, export_metaschedule
from schedenv.records.migrations import LEGACY_RUN
from schedenv.records.parquet import export_parquet
from schedenv.records.printable import printable
from schedenv.records.t4 import export_t4
from schedenv.space import Point, Space
from schedenv.tasks import Task, resolve
from schedenv.tuning import run_dir
from schedenv.tuning.tune import best_point


def export(
    directory: Annotated[Path, typer.Argument(help="The --out directory of a run.")],
    to: Annotated[Path, typer.Option("--to", help="Directory to write.")],
    format: Annotated[
        str, typer.Option("--format", help=f"One of: {', '.join(FORMATS)}.")
    ] = "metaschedule",
    best: Annotated[
        int, typer.Option(help="With metaschedule: how many schedules, the winner included.")
    ] = 1,
) -> None:
    """Write a run's schedules or records in a format that other tools read.

    metaschedule: a database with the best schedule, for plain TVM. t4: every record, in the
    autotuning community's open format. parquet: every record as a table.
    """
    check_format(format)
    if best < 1:
        raise InputError(f"expected --best of 1 or more, got {best}")
    if format == "metaschedule":
        said = _metaschedule(directory, to, best)
    else:
        said = _records(directory, to, format)
    typer.echo(f"{said} written to {to}")


def _metaschedule(directory: Path, to: Path, count: int) -> str:
    best = run_dir.read_json(directory / run_dir.BEST)
    point = best_point(directory)
    if point is None:
        raise InputError(
            f"the run in {directory} found nothing faster than the untuned program, so there is "
            "no schedule to export; tune with a larger budget"
        )
    task = _same_task(best)
    latency_s = best["tuned"]["latency_us"] * 1e-6
    candidates = [(point, latency_s)]
    if count > 1:
        records, _ = _read(directory)
        candidates += _next_best(records, point, count - 1)
    written = export_metaschedule(task, candidates, best["hardware"], to)
    others = f", and {written - 1} more" if written > 1 else ""
    return f"metaschedule database of {best['name']} ({latency_s * 1e6:.1f} us{others})"


def _next_best(records: list[Record], winner: Point, count: int) -> list[tuple[Point, float]]:
    timed = [
        (record.result.point, record.result.estimate_s)
        for record in records
        if record.result.estimate_s is not None and record.result.point != winner
    ]
    return sorted(timed, key=lambda candidate: candidate[1])[:count]


def _records(directory: Path, to: Path, format: str) -> str:
    run = run_dir.read_json(directory / run_dir.RUN)
    records, runs = _read(directory)
    if not records:
        raise InputError(f"the run in {directory} has no records yet; tune first")
    if format == "parquet":
        export_parquet(records, runs, to)
    else:
        task = _same_task(run)
        hardware = _hardware(run, directory)
        export_t4(records, Space(task.mod, hardware), hardware, to)
    return f"{len(records)} records of {printable(records[0].task_name, limit=80)}"


def _read(directory: Path) -> tuple[list[Record], dict[str, Run]]:
    """The records of a run, and the runs of its store."""
    run = run_dir.read_json(directory / run_dir.RUN)
    place = run.get("store") or directory / run_dir.RECORDS
    if isinstance(place, Path) and not place.is_file():
        raise OutputDirError(f"{place} does not exist; expected the --out directory of a run")
    with Archive(place) as archive:
        reading = archive.read(Selection(run_id=run.get("run_id", LEGACY_RUN)))
        if reading.unreadable:
            typer.echo(
                f"warning: {len(reading.unreadable)} records cannot be read and are left out; "
                f"list them with: schedenv records verify {archive.name}",
                err=True,
            )
        return reading.records, archive.runs()


def _same_task(run: dict[str, Any]) -> Task:
    task = resolve(run["task"])
    if task.content_hash != run["task_hash"]:
        raise InputError(
            f"{run['task']} is not the program that was tuned any more "
            f"(hash {task.content_hash}, tuned {run['task_hash']}); tune it again"
        )
    return task


def _hardware(run: dict[str, Any], directory: Path) -> Hardware:
    try:
        return msgspec.convert(run.get("hardware"), Hardware)
    except msgspec.ValidationError as error:
        raise OutputDirError(
            f"{directory / run_dir.RUN} does not say which hardware the run was on ({error})"
        ) from None
