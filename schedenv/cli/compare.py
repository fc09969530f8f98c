"""The command `schedenv compare`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from schedenv.cli.race_display import run_race
from schedenv.comparison.arenas import make_arena
from schedenv.comparison.race import Request
from schedenv.comparison.text import standings_table
from schedenv.errors import InputError
from schedenv.tasks import suite_names

_TRIALS = 64
_SECONDS = 60.0


def compare(
    agents: Annotated[
        str,
        typer.Option(
            help="Contestants, separated by commas: installed ones, FILE.py:CLASS, or "
            "NAME=CHECKPOINT."
        ),
    ] = "random,evolutionary,droplet,greedy",
    suite: Annotated[
        list[str] | None, typer.Option(help="Race on all tasks of this suite. Repeatable.")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(metavar="TASK", help="Race on this task. Repeatable.")
    ] = None,
    tables: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Race on recorded tables instead, exactly and offline: names of shipped ones or "
            "files, separated by commas, or 'all'.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Attempts of each contestant on each task.")] = 5,
    trials: Annotated[
        int | None,
        typer.Option(help="Budget of an attempt, in candidates. [default: 64 with --tables]"),
    ] = None,
    seconds: Annotated[
        float | None,
        typer.Option(
            help="Budget of an attempt, in seconds; simulated ones with --tables. "
            "[default: 60 without --tables]"
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(help="Whom the others are compared with. [default: the first contestant]"),
    ] = None,
    out: Annotated[Path, typer.Option(help="The race's directory.")] = Path("out/compare"),
    resume: Annotated[
        bool,
        typer.Option(
            "--resume",
            help="Go on with the race in --out; contestants, tasks and seeds may be added.",
        ),
    ] = False,
    jobs: Annotated[
        int,
        typer.Option(
            help="Attempts at once, with --tables alone; the results are those of one by one."
        ),
    ] = 1,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object at the end, nothing else.")
    ] = False,
) -> None:
    """Race agents: same tasks, same seeds, same budget; say who is better, and how surely."""
    names = [name.strip() for name in agents.split(",") if name.strip()]
    if not names:
        raise InputError("expected --agents with one contestant at least, such as random,greedy")
    specs = [*(suite or []), *(task or [])]
    if trials is None and seconds is None:
        trials, seconds = (None, _SECONDS) if specs else (_TRIALS, None)
    arena = make_arena(names, specs, tables, out)
    request = Request(arena, seeds, trials, seconds, reference, out, resume, jobs)
    command = _command(agents, specs, tables, request)
    run_race(request, command, standings_table, as_json=as_json)


def _command(agents: str, specs: list[str], tables: str | None, request: Request) -> str:
    """The command that goes on with a race."""
    words = ["schedenv", "compare", "--agents", agents, *where_words(specs, tables)]
    words += ["--seeds", str(request.seeds)]
    if request.trials is not None:
        words += ["--trials", str(request.trials)]
    if request.seconds is not None:
        words += ["--seconds", f"{request.seconds:g}"]
    if request.jobs != 1:
        words += ["--jobs", str(request.jobs)]
    if request.reference is not None:
        words += ["--reference", request.reference]
    return shlex.join([*words, "--out", str(request.out), "--resume"])


def where_words(specs: Sequence[str], tables: str | None) -> list[str]:
    """The options that say where a race takes place."""
    words = [] if tables is None else ["--tables", tables]
    for spec in specs:
        words += ["--suite" if spec in suite_names() else "--task", spec]
    return words
