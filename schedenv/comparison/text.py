"""A race's summary for people: a table on the screen, and Markdown."""

from __future__ import annotations

from rich.table import Table

from schedenv.comparison.scores import Axis
from schedenv.comparison.statistics import Interval
from schedenv.comparison.summary import Standing, Summary


def standings_table(summary: Summary) -> Table:
    """The contestants, the best one last column first: a table for the screen."""
    grid = Table(box=None, pad_edge=False, title_justify="left")
    for number, heading in enumerate(_headings(summary)):
        grid.add_column(heading, justify="left" if number == 0 else "right")
    for standing in summary.standings:
        grid.add_row(*_cells(summary, standing))
    return grid


def failure_lines(summary: Summary) -> list[str]:
    """What failed attempts said, the most frequent first."""
    ranked = sorted(summary.failures.items(), key=lambda item: -item[1])
    return [f"failed {count} times: {reason}" for reason, count in ranked]


def markdown(summary: Summary) -> list[str]:
    """The summary as lines of Markdown: standings by part of the budget, then by task."""
    headings = _headings(summary)
    lines = [_row(headings), _rule(len(headings))]
    lines += [_row(_cells(summary, standing)) for standing in summary.standings]
    parts = [f"{_amount(c.at, summary.axis)}" for c in summary.standings[0].checkpoints]
    lines += ["", "Quality (interquartile mean) by part of the budget:", ""]
    lines += [_row(["", *parts]), _rule(len(parts) + 1)]
    for standing in summary.standings:
        lines.append(_row([standing.agent, *(_range(c.quality) for c in standing.checkpoints)]))
    lines += ["", f"Probability of being better than {summary.reference}:", ""]
    lines += [_row(["", *parts]), _rule(len(parts) + 1)]
    for standing in summary.standings:
        if standing.agent != summary.reference:
            odds = [_range(c.improvement) for c in standing.checkpoints]
            lines.append(_row([standing.agent, *odds]))
    agents = [standing.agent for standing in summary.standings]
    lines += ["", "Quality at the end, by task:", "", _row(["task", *agents])]
    lines.append(_rule(len(agents) + 1))
    for fact in summary.facts:
        cells = [_range(standing.by_task[fact.title]) for standing in summary.standings]
        lines.append(_row([fact.title, *cells]))
    return [*lines, *([""] if summary.failures else []), *failure_lines(summary)]


def _headings(summary: Summary) -> list[str]:
    known = "optimum" if summary.tables else "best found by anybody"
    unit = "simulated seconds" if summary.tables else "seconds"
    budget = f"{summary.budget:g} {unit if summary.axis is Axis.SECONDS else 'trials'}"
    return [
        "agent",
        f"share of the {known} after {budget}",
        "mean regret",
        f"better than {summary.reference}",
        f"sooner at {summary.reference}'s end result",
        "failed attempts",
        "failed candidates",
    ]


def _cells(summary: Summary, standing: Standing) -> list[str]:
    last = standing.checkpoints[-1]
    is_reference = standing.agent == summary.reference
    return [
        standing.agent,
        _range(last.quality),
        f"{last.mean_regret.estimate:.2%}",
        "-" if is_reference else _range(last.improvement),
        "-" if is_reference else _sooner(standing),
        f"{standing.failed} of {standing.attempts}",
        f"{standing.failure_rate:.1%}",
    ]


def _sooner(standing: Standing) -> str:
    at_most = "" if standing.reached == 1 else "at most "
    interval = standing.sooner
    text = f"{at_most}{interval.estimate:.2f}x ({interval.low:.2f} to {interval.high:.2f})"
    return text if standing.reached == 1 else f"{text}, {standing.reached:.0%} had it"


def _range(interval: Interval | None) -> str:
    if interval is None:
        return "-"
    return f"{interval.estimate:.3f} ({interval.low:.3f} to {interval.high:.3f})"


def _amount(at: float, axis: Axis) -> str:
    return f"{at:g} s" if axis is Axis.SECONDS else f"{at:g} trials"


def _row(cells: list[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _rule(columns: int) -> str:
    return "|---|" + "---:|" * (columns - 1)
