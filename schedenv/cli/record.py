"""The command `schedenv record`."""

from __future__ import annotations

import json
import shlex
import signal
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console

from schedenv import hardware as hw
from schedenv.calibration import peaks as measure_peaks
from schedenv.cli.display import duration
from schedenv.errors import InputError
from schedenv.measure.table import Table
from schedenv.measure.table_file import require_arrow
from schedenv.space import Restriction, Space, fit_restriction
from schedenv.tasks import Task, resolve
from schedenv.tuning.recording import LOOKS, RecordProgress, RecordRequest
from schedenv.tuning.recording import record as run_record

DEFAULT_POINTS = 600
_INTERRUPTS = (signal.SIGINT, signal.SIGTERM)
_PRINT_INTERVAL_S = 5.0
_STAGES = {
    "prepare": "listing the points, finding equal programs",
    "measure": "measuring every program: does it work, what does it cost",
    "compare": "timing the programs against each other, in several passes",
    "finals": "timing the fastest against each other",
}


def record(
    task: Annotated[str, typer.Argument(metavar="TASK", help="As for schedenv tune.")],
    out: Annotated[Path, typer.Option(help="The Parquet file to write.")],
    points: Annotated[
        int | None,
        typer.Option(help=f"Most points of the table. [default: {DEFAULT_POINTS}]"),
    ] = None,
    restrict: Annotated[
        str | None,
        typer.Option(
            help="Which part of the space: JSON, or a file that holds it. [default: a part that "
            "fits --points is chosen]"
        ),
    ] = None,
    looks: Annotated[
        int, typer.Option(min=1, help="In how many passes every candidate is timed.")
    ] = LOOKS,
    seed: Annotated[int, typer.Option(help="Of the order of the candidates.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the recording that --out began.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object at the end, nothing else.")
    ] = False,
) -> None:
    """Measure a part of a task's space exhaustively, into a table with a known optimum."""
    require_arrow("writing a recorded table")
    resolved = resolve(task)
    limit = DEFAULT_POINTS if points is None else points
    request = RecordRequest(
        resolved, _restriction(resolved, restrict, limit), out, limit, seed, looks, resume
    )
    console = Console(highlight=False, soft_wrap=True, quiet=as_json)
    with Console(stderr=True).status("measuring this machine's peaks (once, some 8 seconds)"):
        measure_peaks(hw.detect())
    caught: list[int] = []

    def interrupt(number: int, _: object) -> None:
        caught.append(number)
        raise KeyboardInterrupt

    previous = {number: signal.signal(number, interrupt) for number in _INTERRUPTS}
    try:
        table = run_record(request, _Printer(console, resolved.name))
    except KeyboardInterrupt:
        Console(stderr=True, soft_wrap=True, highlight=False).print(
            "interrupted; every result is kept. Continue with:\n  "
            + resume_command(task, out, points, restrict, looks, seed),
            markup=False,
        )
        raise typer.Exit(128 + (caught or [signal.SIGINT])[0]) from None
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    if as_json:
        typer.echo(json.dumps(summary(table, request)))
    else:
        console.print(report(table, request), markup=False)


def resume_command(
    task: str, out: Path, points: int | None, restrict: str | None, looks: int, seed: int
) -> str:
    """The command that goes on with a recording."""
    words = ["schedenv", "record", task]
    if points is not None:
        words += ["--points", str(points)]
    if restrict is not None:
        words += ["--restrict", restrict]
    words += ["--looks", str(looks), "--seed", str(seed), "--out", str(out), "--resume"]
    return shlex.join(words)


def summary(table: Table, request: RecordRequest) -> dict[str, Any]:
    """What `--json` prints."""
    optimum = table.info.optimum
    failed = sum(row.estimate_s is None for row in table.rows)
    return {
        "task": table.info.task.spec,
        "out": str(request.out),
        "records": str(request.records_dir),
        "points": len(table.rows),
        "failed": failed,
        "components": table.info.components,
        "untuned_us": table.info.untuned_s * 1e6,
        "optimum": {
            "point": optimum.point,
            "latency_us": optimum.estimate_s * 1e6,
            "is_finalist": optimum.is_finalist,
            "ties": len(optimum.ties),
        },
        "elapsed_s": table.info.method.seconds,
    }


def report(table: Table, request: RecordRequest) -> str:
    """What is printed at the end."""
    content = summary(table, request)
    optimum = content["optimum"]
    pieces = [
        f"{table.info.task.name}: {content['points']} points ({content['failed']} failed) in "
        f"{duration(content['elapsed_s'])}, written to {request.out}",
        f"optimum {optimum['latency_us']:.1f} us ({optimum['point']}), untuned "
        f"{content['untuned_us']:.1f} us; points that may be as fast: {optimum['ties'] - 1}",
    ]
    if not optimum["is_finalist"]:
        pieces.append("the optimum was not among the finalists: record again on a quieter machine")
    if content["components"] > 1:
        pieces.append(
            f"moves do not connect all points: they fall into {content['components']} parts"
        )
    pieces.append(f"all samples are in {request.records_dir}, which is not needed any more")
    return "\n".join(pieces)


def _restriction(task: Task, text: str | None, limit: int) -> Restriction:
    """What `--restrict` says; without it, a part of the space that fits."""
    if text is None:
        return fit_restriction(Space(task.mod, hw.detect()), limit)
    if text.lstrip().startswith("{"):
        return Restriction.parse(text)
    try:
        return Restriction.parse(Path(text).read_text())
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"--restrict {text} is neither JSON nor a file that can be read ({error})"
        ) from None


class _Printer:
    """Prints a line when a stage begins, and now and then while it goes on."""

    def __init__(self, console: Console, name: str) -> None:
        self._console, self._name = console, name
        self._stage = ""
        self._printed_s = 0.0

    def __call__(self, progress: RecordProgress) -> None:
        if progress.stage != self._stage:
            self._stage = progress.stage
            self._console.print(f"{self._name}: {_STAGES[progress.stage]}")
        if progress.fresh and time.monotonic() - self._printed_s > _PRINT_INTERVAL_S:
            self._printed_s = time.monotonic()
            self._console.print(f"  {progress_line(progress)}")


def progress_line(progress: RecordProgress) -> str:
    """How far a recording is, in a line."""
    counts = ", ".join(f"{count} {status.value}" for status, count in progress.counts.most_common())
    text = f"{progress.done} of {progress.total} programs ({counts})"
    remaining_s = progress.remaining_s
    return text if remaining_s is None else f"{text}, {duration(remaining_s)} left"
