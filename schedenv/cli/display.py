"""The live display of a tuning run."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Self

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from schedenv.calibration import Peaks
from schedenv.tasks import Task
from schedenv.tuning.budget import Budget
from schedenv.tuning.loop import Progress
from schedenv.tuning.tune import Watcher

_STAGES = {
    "prepare": "computing the reference, starting the workers",
    "baseline": "timing the untuned program",
    "search": "searching",
    "confirm": "timing the finalists against the untuned program in fresh processes",
}
_BLOCKS = " ▁▂▃▄▅▆▇█"
_PLAIN_INTERVAL_S = 5.0


def duration(seconds: float) -> str:
    """Seconds as a person would say them."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def sparkline(values: list[float], width: int = 40) -> str:
    """Values as a row of blocks, the largest highest."""
    shown = values[-width:]
    top = max(shown, default=0.0)
    if top <= 0:
        return ""
    return "".join(_BLOCKS[round(value / top * (len(_BLOCKS) - 1))] for value in shown)


class LiveDisplay(Watcher):
    """Shows a run as it goes: a live panel on a terminal, a line now and then elsewhere."""

    def __init__(self, console: Console, task: Task, peaks: Peaks) -> None:
        self._console, self._task, self._peaks = console, task, peaks
        self._stage = "prepare"
        self._baseline_s: float | None = None
        self._progress: Progress | None = None
        self._budget: Budget | None = None
        self._live = Live(self, console=console, refresh_per_second=4, transient=True)
        self._printed_s = 0.0

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

    def stage(self, name: str) -> None:
        """Note the stage."""
        self._stage = name
        if not self._console.is_terminal:
            self._console.print(f"{self._task.name}: {_STAGES[name]}")

    def baseline(self, baseline_s: float) -> None:
        """Note the untuned program's estimate."""
        self._baseline_s = baseline_s

    def progress(self, progress: Progress, budget: Budget) -> None:
        """Note the search's progress."""
        self._progress, self._budget = progress, budget
        if not self._console.is_terminal and (
            time.monotonic() - self._printed_s > _PLAIN_INTERVAL_S
        ):
            self._printed_s = time.monotonic()
            self._console.print(f"  {self._best()}; {self._spent()}", soft_wrap=True)

    def __rich__(self) -> RenderableType:
        table = Table.grid(padding=(0, 2))
        table.add_row(Text("best", style="bold"), self._best())
        table.add_row(Text("spent", style="bold"), self._spent())
        if self._progress is not None:
            counts = ", ".join(
                f"{count} {status.value}" for status, count in self._progress.counts.most_common()
            )
            table.add_row(Text("trials", style="bold"), counts)
            speeds = [1.0 / best_s for _, _, best_s in self._progress.curve]
            table.add_row(Text("gains", style="bold"), Text(sparkline(speeds), style="green"))
        heading = Text(f"{self._task.name}  ", style="bold cyan")
        heading.append(_STAGES[self._stage], style="not bold")
        return Group(heading, table)

    def _best(self) -> str:
        best = self._progress.best if self._progress is not None else None
        if best is None or best.estimate_s is None:
            if self._baseline_s is None:
                return "-"
            return f"untuned {self._baseline_s * 1e6:.1f} us"
        text = f"{best.estimate_s * 1e6:.1f} us"
        if self._baseline_s is not None:
            text += f", {self._baseline_s / best.estimate_s:.1f}x untuned"
        if self._task.flops:
            rate = self._task.flops / best.estimate_s
            text += f", {rate / 1e9:.4g} GFLOP/s = {rate / self._peaks.flops_per_s:.0%} of peak"
        return text

    def _spent(self) -> str:
        if self._budget is None:
            return "-"
        elapsed_s, trials = self._budget.elapsed_s, self._budget.used_trials
        text = f"{trials} trials, {duration(elapsed_s)}"
        if elapsed_s > 0:
            text += f", {trials / elapsed_s:.1f} trials/s"
        remaining_s = self._budget.remaining_s
        return text if remaining_s is None else f"{text}, {duration(remaining_s)} left"
