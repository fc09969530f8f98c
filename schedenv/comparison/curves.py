"""The lines of a race's pictures: quality and latency over the budget, and profiles."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from schedenv.comparison.attempts import Facts, read_attempts, read_finals
from schedenv.comparison.scores import Axis, Field, put_to_scale
from schedenv.comparison.statistics import (
    Doubles,
    Profile,
    interquartile_mean,
    performance_profile,
)
from schedenv.comparison.summary import Summary, read_summary

COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#444444", "#8c564b")
"""Colours that people with colour blindness tell apart (Okabe and Ito, 2008), and two more."""

_MARKS = 48
_RESAMPLES = 400
_FIRST_SHARE = 1 / 64
_MARGIN = 0.01
_THRESHOLDS = 101


@dataclass(frozen=True)
class Line:
    """One line with a band.

    Attributes:
        agent: Whose it is.
        x: Ascending, shape (k,).
        y: Shape (k,).
        low: Lower edge of the band.
        high: Upper edge.
    """

    agent: str
    x: Doubles
    y: Doubles
    low: Doubles
    high: Doubles


@dataclass(frozen=True)
class RaceData:
    """A finished race, read from its directory.

    Attributes:
        summary: What it says.
        field: Its attempts.
    """

    summary: Summary
    field: Field

    @classmethod
    def read(cls, folder: Path) -> RaceData:
        """Read a race.

        Raises:
            OutputDirError: There is none, or it is damaged.
        """
        summary = read_summary(folder)
        attempts = list(read_attempts(folder).values())
        if not summary.tables:
            attempts = put_to_scale(attempts, read_finals(folder))
        agents = [standing.agent for standing in summary.standings]
        return cls(summary, Field.of(agents, summary.facts, attempts))

    @property
    def agents(self) -> tuple[str, ...]:
        """The contestants."""
        return self.field.agents

    def colour(self, agent: str) -> str:
        """The same one in every picture of a race."""
        return COLOURS[self.agents.index(agent) % len(COLOURS)]

    def marks(self, axis: Axis) -> Doubles:
        """Where lines have points: as far as half of the attempts went."""
        end = self.field.spent(axis)
        if axis is self.summary.axis:
            end = self.summary.budget
        if axis is Axis.TRIALS:
            return np.unique(np.geomspace(1, max(end, 1), _MARKS).round())
        return np.geomspace(end * _FIRST_SHARE, end, _MARKS)

    def quality(self, axis: Axis) -> list[Line]:
        """Interquartile mean of the scores with its 95 % interval, by contestant."""
        marks, lines = self.marks(axis), []
        for agent in self.agents:
            scores = [
                fact.best_s / self.field.latencies(fact, agent, axis, marks)
                for fact in self.field.facts
            ]
            found = [
                interquartile_mean([of_task[:, i] for of_task in scores], resamples=_RESAMPLES)
                for i in range(len(marks))
            ]
            ends = np.array([[one.estimate, one.low, one.high] for one in found], np.float64)
            lines.append(Line(agent, marks, *ends.T))
        return lines

    def latency_us(self, fact: Facts, axis: Axis) -> list[Line]:
        """Median latency with its quartiles on one task, in microseconds, by contestant."""
        marks = self.marks(axis)
        lines = []
        for agent in self.agents:
            found = self.field.latencies(fact, agent, axis, marks) * 1e6
            low, middle, high = np.quantile(found, [0.25, 0.5, 0.75], axis=0)
            lines.append(Line(agent, marks, middle, low, high))
        return lines

    def profiles(self) -> list[Line]:
        """Share of the runs whose score at the end is above each threshold, by contestant."""
        scores = {
            agent: self.field.scores(agent, self.summary.axis, np.inf) for agent in self.agents
        }
        worst = min(float(of_task.min()) for found in scores.values() for of_task in found)
        thresholds = np.linspace(worst - _MARGIN, 1.0, _THRESHOLDS)
        lines = []
        for agent in self.agents:
            found: Profile = performance_profile(scores[agent], thresholds)
            lines.append(Line(agent, thresholds, found.shares, found.low, found.high))
        return lines


def axis_title(data: RaceData, axis: Axis) -> str:
    """What stands at an axis of a budget."""
    if axis is Axis.TRIALS:
        return "candidates measured"
    return "simulated seconds" if data.summary.tables else "seconds, thinking included"


def quality_title(data: RaceData) -> str:
    """What stands at the axis of the quality."""
    return f"share of the {'optimum' if data.summary.tables else 'best kernel'}'s speed"
