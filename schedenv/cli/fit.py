"""The command `schedenv fit`."""

from __future__ import annotations

import json
import time
import warnings
from pathlib import Path
from typing import Annotated, Any

import msgspec
import typer
from rich.console import Console
from rich.table import Table as Grid

from schedenv import hardware as hw
from schedenv.cli import stores
from schedenv.cli.display import duration
from schedenv.costmodel import (
    CostModel,
    Quality,
    TrainingData,
    judge,
    make_model,
    mean_quality,
)
from schedenv.errors import InputError, UnreadableRecordsWarning
from schedenv.measure.table_file import read_table, shipped_tables
from schedenv.records import Record, Selection
from schedenv.tasks import resolve


def fit(
    sources: Annotated[
        list[str],
        typer.Argument(
            metavar="STORE|TABLE...",
            help="Record stores or run directories (of this machine), or recorded tables (Parquet "
            "files, or names of shipped ones).",
        ),
    ],
    out: Annotated[Path, typer.Option(help="The folder to write.")],
    kind: Annotated[
        str,
        typer.Option(
            help="trees: MetaSchedule's features and trees, milliseconds a point; tokens: a "
            "network on the knobs, microseconds a point."
        ),
    ] = "tokens",
    held_out: Annotated[
        str,
        typer.Option(
            metavar="TASK|FAMILY,...", help="Never trained on; the model is judged on these."
        ),
    ] = "",
    task: Annotated[
        list[str] | None,
        typer.Option(metavar="FILE:NAME", help="A program of a file that a store has results of."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything random in training.")] = 0,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object at the end, nothing else.")
    ] = False,
) -> None:
    """Fit a cost model to measured points, judge it on held-out tasks, save it."""
    model = make_model(kind, seed)
    data = _read(sources, task or [])
    names = [name for name in held_out.split(",") if name]
    learned, held = data.split(names)
    console = Console(highlight=False, soft_wrap=True, quiet=as_json)
    console.print(
        f"{learned.count} points of {len(learned.tasks)} tasks to learn from, {len(held)} tasks "
        "held out"
    )
    start_s = time.monotonic()
    model.fit(learned)
    elapsed_s = time.monotonic() - start_s
    qualities = judge(model, held)
    model.note_quality({name: _plain(quality) for name, quality in qualities.items()})
    model.save(out)
    if as_json:
        typer.echo(json.dumps(_summary(model, qualities, out, elapsed_s)))
        return
    if qualities:
        console.print(_grid(qualities))
    else:
        console.print("not judged: name tasks or families with --held-out to know its quality")
    console.print(f"{kind} model fitted in {duration(elapsed_s)}, written to {out}", markup=False)


def _read(sources: list[str], programs: list[str]) -> TrainingData:
    """The data of all sources.

    Raises:
        InputError: A source cannot be used, or sources are of several machines.
    """
    records: list[Record] = []
    tables = []
    here = hw.detect()
    shipped = shipped_tables()
    for source in sources:
        if source.endswith(".parquet") or source in shipped:
            tables.append(read_table(shipped.get(source, Path(source))))
            continue
        with stores.existing(source) as archive:
            reading = archive.read(Selection(fingerprint=here.fingerprint))
        records += reading.records
        if reading.unreadable:
            warnings.warn(
                f"{len(reading.unreadable)} records of {source} cannot be read and are left out; "
                f"list them with: schedenv records verify {source}",
                UnreadableRecordsWarning,
                stacklevel=2,
            )
    parts = []
    if tables:
        parts.append(TrainingData.from_tables(tables))
    if records or not tables:
        tasks = [resolve(text) for text in programs]
        parts.append(TrainingData.from_records(records, here, tasks))
    machines = {part.hardware.fingerprint: part.hardware for part in parts}
    if len(machines) > 1:
        raise InputError(
            "expected measurements of one machine, got stores of "
            f"{here.fingerprint} and tables of {parts[0].hardware.fingerprint}; fit a model for "
            "each"
        )
    return TrainingData.of(parts[0].hardware, [entry for part in parts for entry in part.tasks])


def _grid(qualities: dict[str, Quality]) -> Grid:
    grid = Grid(box=None, pad_edge=False)
    grid.add_column("held-out task")
    for name in ("points", "top-1", "top-5", "pairwise", "Kendall tau"):
        grid.add_column(name, justify="right")
    rows = list(qualities.items())
    if len(rows) > 1:
        rows.append(("mean of tasks", mean_quality(qualities)))
    for name, quality in rows:
        grid.add_row(
            name,
            str(quality.points),
            *(
                f"{value:.3f}"
                for value in (quality.top1, quality.top5, quality.pairwise, quality.kendall_tau)
            ),
        )
    return grid


def _summary(
    model: CostModel, qualities: dict[str, Quality], out: Path, elapsed_s: float
) -> dict[str, Any]:
    info = model.fitted()
    return {
        "kind": model.kind,
        "out": str(out),
        "records": info.records,
        "tasks": [entry.name for entry in info.tasks],
        "held_out": {name: _plain(quality) for name, quality in qualities.items()},
        "mean": _plain(mean_quality(qualities)) if qualities else None,
        "elapsed_s": elapsed_s,
    }


def _plain(quality: Quality) -> dict[str, float]:
    plain: dict[str, float] = msgspec.to_builtins(quality)
    return plain
