"""The command `schedenv collect`."""

from __future__ import annotations

import contextlib
import json
import shlex
import signal
import time
from typing import Annotated, Any

import typer
from rich.console import Console

from schedenv import hardware as hw
from schedenv.calibration import peaks as measure_peaks
from schedenv.cli.display import duration
from schedenv.records.database import without_password
from schedenv.tasks import resolve_many
from schedenv.tuning.collect import Collected, CollectRequest
from schedenv.tuning.collect import collect as run_collect

_PRINT_INTERVAL_S = 5.0


def collect(
    tasks: Annotated[
        list[str],
        typer.Argument(metavar="SUITE|TASK...", help="Suites, or tasks as for schedenv tune."),
    ],
    out: Annotated[
        str,
        typer.Option(
            help="Where the results go: a directory, a file that ends in .sqlite, or "
            "postgresql+psycopg://USER@HOST/NAME."
        ),
    ],
    points: Annotated[int, typer.Option(min=1, help="Programs measured for each task.")] = 64,
    seed: Annotated[int, typer.Option(help="Of the points drawn.")] = 0,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue what --out holds, or add --points to it.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object at the end, nothing else.")
    ] = False,
) -> None:
    """Measure random points, and neighbours of good ones, to train cost models on."""
    resolved = {task.content_hash: task for text in tasks for task in resolve_many(text)}
    request = CollectRequest(tuple(resolved.values()), points, seed, out, resume)
    with Console(stderr=True).status("measuring this machine's peaks (once, some 8 seconds)"):
        measure_peaks(hw.detect())
    console = Console(highlight=False, soft_wrap=True, quiet=as_json)
    state = None
    # One between two searches ends up here; the searches deal with theirs themselves.
    with contextlib.suppress(KeyboardInterrupt):
        state = run_collect(request, _Printer(console))
    if state is None or state.interrupted_by is not None:
        Console(stderr=True, soft_wrap=True, highlight=False).print(
            "interrupted; every result is kept. Continue with:\n  "
            + resume_command(tasks, request),
            markup=False,
        )
        caught = state.interrupted_by if state is not None else None
        raise typer.Exit(128 + (caught or signal.SIGINT))
    if as_json:
        typer.echo(json.dumps(summary(request, state)))
    else:
        store = without_password(request.store)
        console.print(
            f"{state.done} results of {len(request.tasks)} tasks in {store} "
            f"({_counts(state)}; {state.fresh} new, {duration(state.elapsed_s)}); fit a model "
            f"with: {shlex.join(['schedenv', 'fit', store, '--out', 'model'])}",
            markup=False,
        )


def resume_command(tasks: list[str], request: CollectRequest) -> str:
    """The command that goes on with collecting."""
    words = ["schedenv", "collect", *tasks, "--points", str(request.points)]
    words += ["--seed", str(request.seed), "--out", without_password(request.out), "--resume"]
    return shlex.join(words)


def summary(request: CollectRequest, state: Collected) -> dict[str, Any]:
    """What `--json` prints."""
    return {
        "store": without_password(request.store),
        "tasks": {name: counts.total() for name, counts in state.by_task.items()},
        "points": state.done,
        "new": state.fresh,
        "counts": {status.value: count for status, count in state.counts.items()},
        "elapsed_s": state.elapsed_s,
    }


def _counts(state: Collected) -> str:
    return ", ".join(f"{count} {status.value}" for status, count in state.counts.most_common())


class _Printer:
    """Prints a line when a task begins, and now and then while it goes on."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._task = ""
        self._printed_s = 0.0

    def __call__(self, state: Collected) -> None:
        now_s = time.monotonic()
        if state.task == self._task and now_s - self._printed_s < _PRINT_INTERVAL_S:
            return
        self._task, self._printed_s = state.task, now_s
        text = f"{state.task}: {state.done} of {state.total} programs"
        if state.counts:
            text += f" ({_counts(state)})"
        if state.remaining_s is not None:
            text += f", {duration(state.remaining_s)} left"
        self._console.print(text, markup=False)
