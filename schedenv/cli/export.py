"""The command `schedenv export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from schedenv.errors import InputError
from schedenv.records.export import FORMATS, check_format
from schedenv.tasks import resolve
from schedenv.tuning import run_dir
from schedenv.tuning.tune import best_point


def export(
    directory: Annotated[Path, typer.Argument(help="The --out directory of a finished run.")],
    to: Annotated[Path, typer.Option("--to", help="Directory to write.")],
    format: Annotated[
        str, typer.Option("--format", help=f"One of: {', '.join(FORMATS)}.")
    ] = "metaschedule",
) -> None:
    """Write a run's best schedule in a format that other tools read."""
    check_format(format)
    best = run_dir.read_json(directory / run_dir.BEST)
    point = best_point(directory)
    if point is None:
        raise InputError(
            f"the run in {directory} found nothing faster than the untuned program, so there is "
            "no schedule to export; tune with a larger budget"
        )
    task = resolve(best["task"])
    if task.content_hash != best["task_hash"]:
        raise InputError(
            f"{best['task']} is not the program that was tuned any more "
            f"(hash {task.content_hash}, tuned {best['task_hash']}); tune it again"
        )
    latency_s = best["tuned"]["latency_us"] * 1e-6
    FORMATS[format](task, point, latency_s, best["hardware"], to)
    typer.echo(f"{format} database of {best['name']} ({latency_s * 1e6:.1f} us) written to {to}")
