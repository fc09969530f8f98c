"""The command `schedenv train`."""

from __future__ import annotations

import json
import shlex
import time
from pathlib import Path
from types import TracebackType
from typing import Annotated, Any, Self

import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from schedenv.cli.display import duration
from schedenv.envs import MAX_STEPS
from schedenv.training.checkpoint import INFO_FILE, CheckpointInfo
from schedenv.training.sources import Sources
from schedenv.training.train import TENSORBOARD, Outcome, Progress, Request
from schedenv.training.train import train as run_train

_DEFAULT_SECONDS = 120.0
_PLAIN_INTERVAL_S = 5.0


def train(
    table: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TABLE",
            help="Train on this recorded table: a file, or the name of a shipped one. Repeatable.",
        ),
    ] = None,
    suite: Annotated[
        list[str] | None, typer.Option(help="Train on this suite, with --model. Repeatable.")
    ] = None,
    task: Annotated[
        list[str] | None,
        typer.Option(metavar="TASK", help="Train on this task, with --model. Repeatable."),
    ] = None,
    model: Annotated[
        Path | None,
        typer.Option(help="The cost model (of schedenv fit --kind tokens) that predicts rewards."),
    ] = None,
    held_out: Annotated[
        list[str] | None,
        typer.Option(
            metavar="TABLE|TASK",
            help="Never train on this one; the policy is judged on it. Repeatable.",
        ),
    ] = None,
    agent: Annotated[str, typer.Option(help="Who learns.")] = "ppo",
    seconds: Annotated[
        float | None,
        typer.Option(help="Stop after this long. [default: 120 if --steps is not given]"),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(help="Stop after this many steps of all environments together.")
    ] = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    out: Annotated[
        Path | None, typer.Option(help="Run directory. [default: out/train-AGENT-SEED]")
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on from the checkpoint in --out.")
    ] = False,
    max_steps: Annotated[int, typer.Option(min=1, help="Steps of an episode.")] = MAX_STEPS,
    scheme: Annotated[
        str, typer.Option(help="What steps pay: log_ratio, relative, shaped or terminal.")
    ] = "log_ratio",
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A hyperparameter of the agent, such as learning_rate=3e-4. Repeatable.",
        ),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object at the end, nothing else.")
    ] = False,
) -> None:
    """Train a policy on recorded tables, or on the predictions of a cost model."""
    tasks = [*(suite or []), *(task or [])]
    sources = Sources.of(table or [], tasks, held_out or [], str(model) if model else None)
    if seconds is None and steps is None:
        seconds = _DEFAULT_SECONDS
    request = Request(
        agent,
        sources,
        seconds,
        steps,
        seed,
        out or Path("out") / f"train-{agent}-{seed}",
        resume,
        tuple(settings or ()),
        max_steps,
        scheme,
    )
    try:
        if as_json:
            outcome = run_train(request)
            typer.echo(json.dumps(_summary(request, outcome)))
        else:
            console = Console(highlight=False, soft_wrap=True)
            with _Display(console, request) as display:
                outcome = run_train(request, display.update)
            _report(request, outcome, console)
    except KeyboardInterrupt:
        # Before training, which deals with the first one itself, or a second one.
        text = "interrupted; nothing was learned yet"
        if (request.out / INFO_FILE).exists():
            text = f"interrupted; go on from the last checkpoint with:\n  {resume_command(request)}"
        Console(stderr=True, soft_wrap=True, highlight=False).print(text, markup=False)
        raise typer.Exit(130) from None
    if outcome.interrupted_by is not None:
        raise typer.Exit(128 + outcome.interrupted_by)


def resume_command(request: Request) -> str:
    """The command that goes on with a run."""
    sources = request.sources
    option = "--table" if sources.model is None else "--task"
    words = ["schedenv", "train"]
    for name in sources.learned:
        words += [option, name]
    if sources.model is not None:
        words += ["--model", sources.model]
    for name in sources.held_out:
        words += ["--held-out", name]
    words += ["--agent", request.agent]
    if request.seconds is not None:
        words += ["--seconds", f"{request.seconds:g}"]
    if request.steps is not None:
        words += ["--steps", str(request.steps)]
    words += ["--seed", str(request.seed), "--max-steps", str(request.max_steps)]
    words += ["--scheme", request.scheme]
    for setting in request.settings:
        words += ["--set", setting]
    return shlex.join([*words, "--out", str(request.out), "--resume"])


def _summary(request: Request, outcome: Outcome) -> dict[str, Any]:
    info = outcome.info
    return {
        "agent": info.agent,
        "out": str(request.out),
        "tasks": [task.name for task in info.tasks],
        "held_out": [task.name for task in info.held_out],
        "steps": info.steps,
        "seconds": info.seconds,
        "metrics": dict(info.metrics),
        "interrupted": outcome.interrupted_by is not None,
        "resume": resume_command(request),
    }


def _report(request: Request, outcome: Outcome, console: Console) -> None:
    info = outcome.info
    spent = f"{info.steps:,} steps in {duration(info.seconds)}"
    if outcome.interrupted_by is not None:
        console.print(f"interrupted after {spent}; a checkpoint is kept. Continue with:")
        console.print(f"  {resume_command(request)}", markup=False)
        return
    console.print(_grid(info))
    console.print(
        f"{info.agent} trained for {spent}; checkpoint in {request.out}, scalars: "
        f"tensorboard --logdir {shlex.quote(str(request.out / TENSORBOARD))}",
        markup=False,
    )


def _grid(info: CheckpointInfo) -> Table:
    """What the greedy policy reaches in an episode, on average over starts."""
    grid = Table(box=None, pad_edge=False)
    grid.add_column("task")
    grid.add_column("trained on")
    grid.add_column("best over untuned", justify="right")
    grid.add_column("share of the known optimum", justify="right")
    for seen, tasks in (("yes", info.tasks), ("no", info.held_out)):
        for task in tasks:
            share = info.metrics.get(f"task/{task.title}/share_of_optimum")
            speedup = info.metrics.get(f"task/{task.title}/geomean_speedup")
            grid.add_row(
                task.title,
                seen,
                "-" if speedup is None else f"{speedup:.1f}x",
                "-" if share is None else f"{share:.1%}",
            )
    return grid


class _Display:
    """A live panel on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console, request: Request) -> None:
        self._console, self._request = console, request
        self._progress: Progress | None = None
        self._live = Live(self, console=console, refresh_per_second=4, transient=True)
        self._printed_s = time.monotonic()

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def update(self, progress: Progress) -> None:
        """Note how far the run is."""
        self._progress = progress
        if not self._console.is_terminal and (
            time.monotonic() - self._printed_s > _PLAIN_INTERVAL_S
        ):
            self._printed_s = time.monotonic()
            self._console.print(f"{self._reached()}; {self._spent()}", markup=False)

    def __rich__(self) -> RenderableType:
        sources = self._request.sources
        heading = Text(f"{self._request.agent}  ", style="bold cyan")
        heading.append(
            f"{len(sources.learned)} tasks, {len(sources.held_out)} held out", style="not bold"
        )
        table = Table.grid(padding=(0, 2))
        table.add_row(Text("episodes", style="bold"), self._reached())
        table.add_row(Text("spent", style="bold"), self._spent())
        return Group(heading, table)

    def _reached(self) -> str:
        scalars = self._progress.scalars if self._progress is not None else {}
        speedup = scalars.get("env/geomean_speedup")
        if speedup is None:
            return "-"
        text = f"{speedup:.1f}x untuned"
        for name, key in (
            ("", "env/share_of_optimum"),
            ("held out ", "env/held_out_share_of_optimum"),
        ):
            if key in scalars:
                text += f", {name}{scalars[key]:.1%} of the optimum"
        return f"{text}, {scalars['env/failure_rate']:.1%} failures"

    def _spent(self) -> str:
        progress = self._progress
        if progress is None:
            return "preparing"
        text = f"{progress.steps:,} steps, {duration(progress.elapsed_s)}"
        rate = progress.scalars.get("env/steps_per_second")
        if rate is not None:
            text += f", {rate:,.0f} steps/s"
        left_s = progress.remaining_s
        return text if left_s is None else f"{text}, {duration(left_s)} left"
