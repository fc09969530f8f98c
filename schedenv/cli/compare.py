"""The command `schedenv compare`."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from types import TracebackType
from typing import Annotated, Self

import msgspec
import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from schedenv import hardware as hw
from schedenv.cli.display import duration
from schedenv.comparison.arenas import LiveArena, RecordedArena
from schedenv.comparison.attempts import Attempt
from schedenv.comparison.contestant import contestant
from schedenv.comparison.race import Request, Watcher, race
from schedenv.comparison.text import failure_lines, standings_table
from schedenv.envs.arguments import read_tables
from schedenv.errors import InputError
from schedenv.measure.table_file import shipped_tables
from schedenv.tasks import resolve, resolve_many
from schedenv.tuning.agent import find_agent
from schedenv.tuning.budget import Budget

_TRIALS = 64
_SECONDS = 60.0
_PLAIN_INTERVAL_S = 5.0


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
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object at the end, nothing else.")
    ] = False,
) -> None:
    """Race agents: same tasks, same seeds, same budget; say who is better, and how surely."""
    names = [name.strip() for name in agents.split(",") if name.strip()]
    if not names:
        raise InputError("expected --agents with one contestant at least, such as random,greedy")
    specs = [*(suite or []), *(task or [])]
    if bool(specs) == (tables is not None):
        raise InputError(
            "expected either --tables, for recorded ones, or --suite or --task, for a race on "
            f"this machine; got {'both' if specs else 'neither'}. Shipped tables: "
            f"{', '.join(shipped_tables())}"
        )
    if trials is None and seconds is None:
        trials, seconds = (None, _SECONDS) if specs else (_TRIALS, None)
    arena = _recorded(names, tables) if tables is not None else _live(names, specs, out)
    request = Request(arena, seeds, trials, seconds, reference, out, resume)
    console = Console(highlight=False, soft_wrap=True)
    try:
        if as_json:
            typer.echo(msgspec.json.encode(race(request)).decode())
            return
        with _Display(console) as display:
            summary = race(request, display)
    except KeyboardInterrupt:
        words = _command(agents, specs, tables, request)
        Console(stderr=True, soft_wrap=True, highlight=False).print(
            f"interrupted; everything is kept. Continue with:\n  {words}", markup=False
        )
        raise typer.Exit(130) from None
    console.print(standings_table(summary))
    for line in failure_lines(summary):
        console.print(line, markup=False, style="yellow")
    console.print(f"see it with: schedenv report {shlex.quote(str(out))}", markup=False)


def _recorded(names: list[str], tables: str) -> RecordedArena:
    found = [find_agent(name) for name in names]
    wanted = list(shipped_tables()) if tables == "all" else tables.split(",")
    # By their names, not those of their tasks: a table is a part of a task's space.
    named = [name.strip() for name in wanted if name.strip()]
    read = read_tables(named, None)
    return RecordedArena(
        found, {Path(name).stem: table for name, table in zip(named, read.tables, strict=True)}
    )


def _live(names: list[str], specs: list[str], out: Path) -> LiveArena:
    contestants = [contestant(name) for name in names]
    tasks = [found for spec in specs for found in (resolve_many(spec) or [resolve(spec)])]
    return LiveArena(contestants, tasks, hw.detect(), out)


def _command(agents: str, specs: list[str], tables: str | None, request: Request) -> str:
    """The command that goes on with a race."""
    words = ["schedenv", "compare", "--agents", agents]
    for spec in specs:
        words += ["--suite" if ":" not in spec and "/" not in spec else "--task", spec]
    if tables is not None:
        words += ["--tables", tables]
    words += ["--seeds", str(request.seeds)]
    if request.trials is not None:
        words += ["--trials", str(request.trials)]
    if request.seconds is not None:
        words += ["--seconds", f"{request.seconds:g}"]
    if request.reference is not None:
        words += ["--reference", request.reference]
    return shlex.join([*words, "--out", str(request.out), "--resume"])


class _Display(Watcher):
    """A live panel on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(self, console=console, refresh_per_second=4, transient=True)
        self._total = self._done = self._fresh = 0
        self._failed = 0
        self._now: tuple[str, str, int, Budget] | None = None
        self._finals: tuple[str, int] | None = None
        self._started_s = self._printed_s = time.monotonic()

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

    def begin(self, total: int, done: int) -> None:
        """Note how much there is to do."""
        self._total, self._done = total, done
        self._started_s = time.monotonic()

    def attempt(self, task: str, agent: str, seed: int, budget: Budget) -> None:
        """Note what goes on."""
        self._now = (task, agent, seed, budget)

    def made(self, attempt: Attempt) -> None:
        """Note that it is over."""
        self._done += 1
        self._fresh += 1
        self._failed += attempt.failure is not None
        self._now = None
        self._print_sometimes(self._overall())

    def finals(self, task: str, kernels: int) -> None:
        """Note what is timed."""
        self._finals = (task, kernels)
        self._print_sometimes(self._doing())

    def __rich__(self) -> RenderableType:
        grid = Table.grid(padding=(0, 2))
        grid.add_row(Text("race", style="bold cyan"), self._overall())
        grid.add_row(Text("now", style="bold"), self._doing())
        return Group(grid)

    def _print_sometimes(self, text: str) -> None:
        now_s = time.monotonic()
        if not self._console.is_terminal and now_s - self._printed_s > _PLAIN_INTERVAL_S:
            self._printed_s = now_s
            self._console.print(text, markup=False)

    def _overall(self) -> str:
        text = f"{self._done} of {self._total} attempts"
        if self._failed:
            text += f", {self._failed} failed"
        elapsed_s = time.monotonic() - self._started_s
        text += f", {duration(elapsed_s)}"
        if self._fresh and self._done < self._total:
            left_s = elapsed_s / self._fresh * (self._total - self._done)
            text += f", {duration(left_s)} left"
        return text

    def _doing(self) -> str:
        if self._now is not None:
            task, agent, seed, budget = self._now
            return (
                f"{agent} on {task}, seed {seed}: {budget.used_trials} trials, "
                f"{duration(budget.elapsed_s)}"
            )
        if self._finals is not None:
            task, kernels = self._finals
            return f"finals of {task}: {kernels} kernels timed in turn"
        return "preparing"
