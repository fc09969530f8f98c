"""Static pictures of a race, for papers and for `runs/`: PNG and SVG."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from schedenv.comparison.curves import Line, RaceData, axis_title, quality_title
from schedenv.comparison.scores import Axis
from schedenv.errors import MissingExtraError, OutputDirError

OVERALL = "quality"
BY_TASK = "tasks"
FORMATS = ("png", "svg")

_DPI = 110
_COLUMNS = 3
_PANEL_INCHES = (4.4, 3.4)


def draw(data: RaceData, folder: Path) -> list[Path]:
    """Draw a race: the quality over the budget with the profile, and every task's latency.

    Args:
        data: The race.
        folder: Where `quality.png`, `quality.svg`, `tasks.png` and `tasks.svg` go.

    Returns:
        The files.

    Raises:
        MissingExtraError: matplotlib is not installed.
        OutputDirError: A picture cannot be written.
    """
    files = []
    for name, figure in ((OVERALL, _overall(data)), (BY_TASK, _by_task(data))):
        for ending in FORMATS:
            files.append(folder / f"{name}.{ending}")
            try:
                figure.savefig(files[-1])
            except OSError as error:
                raise OutputDirError(f"{files[-1]} cannot be written ({error.strerror})") from None
    return files


def _overall(data: RaceData) -> Any:
    figure = _figure(3, 1)
    left, middle, right = figure.subplots(1, 3)
    for axes, axis in ((left, Axis.TRIALS), (middle, Axis.SECONDS)):
        _plot(axes, data, data.quality(axis))
        _scale(axes, data, axis)
        axes.set_ylabel(quality_title(data))
    _plot(right, data, data.profiles())
    right.set(xlabel=quality_title(data), ylabel="share of runs that are better")
    left.legend(frameon=False)
    return figure


def _by_task(data: RaceData) -> Any:
    facts = data.field.facts
    columns = max(1, min(_COLUMNS, len(facts)))
    figure = _figure(columns, max(1, math.ceil(len(facts) / columns)))
    panels = figure.subplots(math.ceil(len(facts) / columns) or 1, columns, squeeze=False).flat
    axis = data.summary.axis
    for axes, fact in zip(panels, facts, strict=False):
        _plot(axes, data, data.latency_us(fact, axis))
        axes.axhline(fact.best_s * 1e6, color="black", linewidth=0.8, linestyle=":")
        _scale(axes, data, axis)
        axes.set(yscale="log", title=fact.title, ylabel="latency, us")
        axes.yaxis.set_major_formatter("{x:g}")
        axes.yaxis.set_minor_formatter("{x:g}")
    for axes in list(panels):
        axes.remove()
    if facts:
        figure.axes[0].legend(frameon=False)
    return figure


def _scale(axes: Any, data: RaceData, axis: Axis) -> None:
    """A logarithmic axis of a budget; trials are marked by powers of two."""
    axes.set_xscale("log", base=2 if axis is Axis.TRIALS else 10)
    axes.set_xlabel(axis_title(data, axis))
    axes.xaxis.set_major_formatter("{x:g}")


def _plot(axes: Any, data: RaceData, lines: list[Line]) -> None:
    for line in lines:
        colour = data.colour(line.agent)
        axes.plot(line.x, line.y, color=colour, label=line.agent, drawstyle="steps-post")
        axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.15, step="post")
    axes.spines[["top", "right"]].set_visible(False)


def _figure(columns: int, rows: int) -> Any:
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingExtraError("matplotlib", "plot", "a picture of a race") from None
    width, height = _PANEL_INCHES
    figure = Figure(figsize=(width * columns, height * rows), dpi=_DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure
