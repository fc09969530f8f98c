"""The command `schedenv evaluate`."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import typer

from schedenv.cli.compare import where_words
from schedenv.cli.race_display import run_race
from schedenv.comparison.arenas import make_arena
from schedenv.comparison.race import Request
from schedenv.comparison.text import trials_table
from schedenv.training.agent import trained_agent
from schedenv.training.checkpoint import TrainedPolicy, load_policy
from schedenv.training.untrained import untrained
from schedenv.tuning.agent import AgentFactory, find_agent

TRAINED, UNTRAINED, RANDOM = "trained", "untrained", "random"


def evaluate(
    checkpoint: Annotated[
        Path, typer.Argument(metavar="CHECKPOINT", help="The --out folder of schedenv train.")
    ],
    suite: Annotated[
        list[str] | None, typer.Option(help="Judge on all tasks of this suite. Repeatable.")
    ] = None,
    task: Annotated[
        list[str] | None, typer.Option(metavar="TASK", help="Judge on this task. Repeatable.")
    ] = None,
    tables: Annotated[
        str | None,
        typer.Option(
            metavar="NAMES",
            help="Judge on recorded tables instead, exactly and offline: names of shipped ones or "
            "files, separated by commas, or 'all'.",
        ),
    ] = None,
    seeds: Annotated[int, typer.Option(help="Attempts on each task.")] = 10,
    trials: Annotated[int, typer.Option(help="Measured candidates of an attempt.")] = 64,
    out: Annotated[
        Path | None, typer.Option(help="Directory. [default: out/evaluate-CHECKPOINT]")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with what is in --out.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object at the end, nothing else.")
    ] = False,
) -> None:
    """Say what a checkpoint is worth in a search, beside the untrained agent and random search."""
    loaded = load_policy(checkpoint)
    agents = [
        AgentFactory(TRAINED, trained_agent(loaded)),
        AgentFactory(UNTRAINED, trained_agent(untrained(loaded))),
        AgentFactory(RANDOM, find_agent(RANDOM).create),
    ]
    folder = out or Path("out") / f"evaluate-{checkpoint.resolve().name}"
    specs = [*(suite or []), *(task or [])]
    arena = make_arena(agents, specs, tables, folder)
    request = Request(arena, seeds, trials, None, RANDOM, folder, resume)
    words = ["schedenv", "evaluate", str(checkpoint), *where_words(specs, tables)]
    words += ["--seeds", str(seeds), "--trials", str(trials), "--out", str(folder), "--resume"]
    notes = _known_before(loaded, arena.programs)
    run_race(request, shlex.join(words), trials_table, notes, as_json=as_json)


def _known_before(loaded: TrainedPolicy, programs: Mapping[str, str]) -> list[str]:
    """A line on tasks that the policy was trained on, which say little about others."""
    learned = {task.content_hash for task in loaded.info.tasks}
    known = [title for title, content_hash in programs.items() if content_hash in learned]
    return [f"trained on these, which is no test: {', '.join(known)}"] if known else []
