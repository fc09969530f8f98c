"""A race's summary for people: a table on the screen, and sections for Markdown and HTML."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.table import Table

from schedenv.comparison.attempts import Facts
from schedenv.comparison.scores import Axis
from schedenv.comparison.statistics import Interval
from schedenv.comparison.summary import Standing, Summary
from schedenv.measure.timing import CALM

_COLUMNS_ON_SCREEN = 6


@dataclass(frozen=True)
class Section:
    """A table with a title.

    Attributes:
        title: What it shows.
        note: What has to be known to read it; empty if nothing.
        headings: Of its columns.
        rows: Its cells.
    """

    title: str
    note: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def standings_table(summary: Summary) -> Table:
    """The contestants, in the order given: a table that fits on a screen."""
    section = _standings(summary)
    # A race without failures, the usual one, needs no columns for them.
    shown = len(section.headings) if summary.failures else _COLUMNS_ON_SCREEN
    grid = Table(box=None, pad_edge=False, title=caption(summary), title_justify="left")
    for number, heading in enumerate(section.headings[:shown]):
        justify: Literal["left", "right"] = "left" if number == 0 else "right"
        grid.add_column(heading, justify=justify, no_wrap=number == 0)
    for row in section.rows:
        grid.add_row(*row[:shown])
    return grid


def trials_table(summary: Summary) -> Table:
    """Quality by part of the budget, and how likely each is better than the reference there."""
    grid = Table(box=None, pad_edge=False, title=caption(summary), title_justify="left")
    grid.add_column("agent", no_wrap=True)
    for point in summary.standings[0].checkpoints:
        is_blind = summary.axis is Axis.TRIALS and point.at == 1
        heading = "zero-shot" if is_blind else _amount(point.at, summary.axis)
        grid.add_column(heading, justify="right", no_wrap=True)
    for standing in summary.standings:
        grid.add_row(standing.agent, *(_two_lines(c.quality) for c in standing.checkpoints))
        if standing.agent != summary.reference:
            odds = [_two_lines(point.improvement) for point in standing.checkpoints]
            grid.add_row(f"  better than {summary.reference}", *odds, style="dim")
    return grid


def _two_lines(interval: Interval | None) -> str:
    if interval is None:
        return "-"
    if interval.low is None or interval.high is None:
        return f"{interval.estimate:.3f}"
    return f"{interval.estimate:.3f}\n{interval.low:.2f}-{interval.high:.2f}"


def caption(summary: Summary) -> str:
    """What is compared, in words."""
    known = "the known optimum's speed" if summary.tables else "the speed of the best kernel found"
    unit = "simulated seconds" if summary.tables else "seconds"
    budget = f"{summary.budget:g} {unit if summary.axis is Axis.SECONDS else 'trials'}"
    return (
        f"quality: share of {known} after {budget}, interquartile mean over {len(summary.facts)} "
        f"tasks x {summary.seeds} seeds; "
        + ("95 % intervals" if summary.seeds > 1 else "with one seed there are no intervals")
    )


def failure_lines(summary: Summary) -> list[str]:
    """What failed attempts said, the most frequent first."""
    ranked = sorted(summary.failures.items(), key=lambda item: -item[1])
    return [f"failed {count} times: {reason}" for reason, count in ranked]


def sections(summary: Summary) -> list[Section]:
    """Everything that a race says, as tables."""
    reference, standings = summary.reference, summary.standings
    marks = tuple(_amount(point.at, summary.axis) for point in standings[0].checkpoints)
    others = [standing for standing in standings if standing.agent != reference]
    return [
        _standings(summary),
        Section(
            "Quality by part of the budget",
            "",
            ("agent", *marks),
            tuple((s.agent, *(_range(c.quality) for c in s.checkpoints)) for s in standings),
        ),
        Section(
            f"Probability of being better than {reference} by part of the budget",
            "Of a run drawn at random on a task drawn at random; a tie counts half. An interval "
            "above 0.5 says better, one below says worse.",
            ("agent", *marks),
            tuple((s.agent, *(_range(c.improvement) for c in s.checkpoints)) for s in others),
        ),
        Section(
            f"Time to reach what {reference} had in the end",
            f"How many times sooner, in {summary.axis.value}, geometric mean; a run that never had "
            "it counts with its whole budget, so the factor is then at most that.",
            ("agent", "times sooner", "runs that had it"),
            tuple((s.agent, _range(s.sooner), f"{s.reached:.0%}") for s in others),
        ),
        Section(
            "Tasks",
            _beside_a_neighbour(summary.facts),
            ("task", "untuned, us", "best known, us", "times faster"),
            tuple(
                (
                    fact.title,
                    f"{fact.untuned_s * 1e6:.1f}",
                    f"{fact.best_s * 1e6:.1f}",
                    f"{fact.untuned_s / fact.best_s:.1f}",
                )
                for fact in summary.facts
            ),
        ),
        Section(
            "Quality at the end by task",
            "",
            ("task", *(standing.agent for standing in standings)),
            tuple(
                (fact.title, *(_range(standing.by_task[fact.title]) for standing in standings))
                for fact in summary.facts
            ),
        ),
    ]


def _beside_a_neighbour(facts: Sequence[Facts]) -> str:
    """In which finals calm moments were rare; empty if in none."""
    disturbed = [
        f"{fact.title} ({fact.slowdown:.2f})"
        for fact in facts
        if fact.slowdown is not None and fact.slowdown >= CALM
    ]
    if not disturbed:
        return ""
    return (
        "A neighbour disturbed at least three of four moments in the finals of these tasks "
        f"(slowdown, lower quartile): {', '.join(disturbed)}. Without it, other kernels may be the "
        "fastest."
    )


def title_of(summary: Summary) -> str:
    """What raced where."""
    where = "recorded tables" if summary.tables else "live tasks"
    return f"{len(summary.standings)} agents on {len(summary.facts)} {where}"


def about_run(run: Mapping[str, Any]) -> str:
    """Where and with what a race was run, from its `run.json`."""
    machine = run.get("hardware")
    where = "recorded tables: exact and repeatable" if machine is None else f"measured on {machine}"
    versions = ", ".join(f"{name} {number}" for name, number in run.get("versions", {}).items())
    return f"{where}; {versions}"


def markdown(summary: Summary, run: Mapping[str, Any]) -> list[str]:
    """A race as lines of Markdown.

    Args:
        summary: What it says.
        run: Its `run.json`.
    """
    lines = [f"# {title_of(summary)}", "", f"{about_run(run)}.", ""]
    for section in sections(summary):
        lines += [f"## {section.title}", ""]
        if section.note:
            lines += [section.note, ""]
        lines += [_row(section.headings), "|---|" + "---:|" * (len(section.headings) - 1)]
        lines += [*map(_row, section.rows), ""]
    if summary.failures:
        lines += ["## Failures", "", *(f"- {line}" for line in failure_lines(summary)), ""]
    return lines[:-1]


def _standings(summary: Summary) -> Section:
    headings = (
        "agent",
        "quality",
        "regret",
        f"better than {summary.reference}",
        "sooner",
        "had it",
        "failed runs",
        "failed candidates",
    )
    return Section(
        "Standings",
        f"{caption(summary)}.",
        headings,
        tuple(_standing(summary, standing) for standing in summary.standings),
    )


def _standing(summary: Summary, standing: Standing) -> tuple[str, ...]:
    last = standing.checkpoints[-1]
    compared: tuple[str, ...] = ("-", "-", "-")
    if standing.agent != summary.reference:
        compared = (
            _range(last.improvement),
            ("" if standing.reached == 1 else "<= ") + f"{standing.sooner.estimate:.2f}x",
            f"{standing.reached:.0%}",
        )
    quality, improvement, *rest = _range(last.quality), *compared
    return (
        standing.agent,
        quality,
        f"{last.mean_regret.estimate:.2%}",
        improvement,
        *rest,
        f"{standing.failed} of {standing.attempts}",
        f"{standing.failure_rate:.1%}",
    )


def _range(interval: Interval | None) -> str:
    if interval is None:
        return "-"
    return interval.text()


def _amount(at: float, axis: Axis) -> str:
    return f"{at:g} s" if axis is Axis.SECONDS else f"{at:g} trial{'s' if at > 1 else ''}"


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cells) + " |"
