"""The live display of a race, and how the commands that run one end."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Self

import msgspec
import typer
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from schedenv.cli.display import duration
from schedenv.comparison.attempts import Attempt
from schedenv.comparison.race import Request, Watcher, race
from schedenv.comparison.summary import Summary
from schedenv.comparison.text import failure_lines
from schedenv.tuning.budget import Budget

_PLAIN_INTERVAL_S = 5.0


def run_race(
    request: Request,
    resume_command: str,
    table: Callable[[Summary], Table],
    notes: Sequence[str] = (),
    *,
    as_json: bool,
) -> None:
    """Run a race and print what it says.

    Args:
        request: The race.
        resume_command: What to print if it is interrupted.
        table: What is shown of its summary.
        notes: Lines to print below the table.
        as_json: Print the summary as JSON and nothing else.
    """
    console = Console(highlight=False, soft_wrap=True)
    try:
        if as_json:
            typer.echo(msgspec.json.encode(race(request)).decode())
            return
        with RaceDisplay(console) as display:
            summary = race(request, display)
    except KeyboardInterrupt:
        Console(stderr=True, soft_wrap=True, highlight=False).print(
            f"interrupted; everything is kept. Continue with:\n  {resume_command}", markup=False
        )
        raise typer.Exit(130) from None
    console.print(table(summary))
    for line in [*notes, *failure_lines(summary)]:
        console.print(line, markup=False, style="yellow")
    console.print(f"see it with: schedenv report {shlex.quote(str(request.out))}", markup=False)


class RaceDisplay(Watcher):
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
