"""Which settings should the greedy agent have, and what are they worth where they were not chosen?

    python runs/greedy_settings.py --seeds 20 --jobs 16 --to runs/greedy_settings.md
    python runs/greedy_settings.py --live core/gmm-2 core/c2d-1 --seconds 60 --seeds 3

Settings chosen on the tables on which they are then judged flatter. So every table is judged with
the settings that did best on the five others, and every half of the tables with those that did best
on the other half; what the settings chosen on all six reach on all six stands beside it. Settings
are the better, the likelier their runs are better than random search, the mean of 16, 32 and 64
trials. With `--live` a few of them race on this machine instead, where spaces are thousands of
times larger than a table.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations, product
from pathlib import Path

import numpy as np
from hierarchical_ablation import part, raced
from schedenv_agents.greedy_local import GreedyConfig, GreedyLocalAgent

from schedenv.comparison.arenas import make_arena
from schedenv.comparison.race import Request
from schedenv.comparison.scores import Axis, Field
from schedenv.comparison.statistics import Scores, interquartile_mean, probability_of_improvement
from schedenv.comparison.summary import checkpoints_of
from schedenv.space import SearchSpace
from schedenv.tuning.agent import AgentFactory, TuningContext, find_agent

PEERS = ("random", "evolutionary")
JUDGED_AT = (16, 32, 64)
BEFORE = GreedyConfig(storm=40, later_storm=24, starts=3, drafted=0.0, batch=16)
"""What `greedy` was before these experiments."""


def grid() -> dict[str, GreedyConfig]:
    """The settings tried on tables, by a name that says them."""
    found = {"before": BEFORE}
    for storm, later, starts, forecast in product((4, 6, 8, 12, 16), (4, 8), (1, 3), (False, True)):
        name = f"storm-{storm}-{later}-starts-{starts}" + "-forecast" * forecast
        found[name] = GreedyConfig(storm=storm, later_storm=later, starts=starts, forecast=forecast)
    default = GreedyConfig()
    found["batch-1"] = replace(default, batch=1)
    found["batch-8"] = replace(default, batch=8)
    found["batch-16"] = replace(default, batch=16)
    found["uniform"] = replace(default, drafted=0.0)
    found["speculate"] = replace(default, speculate=True)
    found["any-faster"] = replace(default, significance=1.0)
    return found


def live() -> dict[str, GreedyConfig]:
    """The settings that race on a machine."""
    default = GreedyConfig()
    return {
        "before": BEFORE,
        "default": default,
        "default-forecast": replace(default, forecast=True),
        "batch-8": replace(default, batch=8),
        "storm-16": replace(default, storm=16),
        "storm-32": replace(default, storm=32),
    }


def agent(name: str, config: GreedyConfig) -> AgentFactory:
    """The greedy agent with a configuration."""

    def create(space: SearchSpace, seed: int, _: TuningContext | None) -> GreedyLocalAgent:
        return GreedyLocalAgent(space, seed, config)

    return AgentFactory(name, create)


class Worth:
    """How good each setting is, by table.

    Args:
        field: Of the race.
        names: Of the settings.
    """

    def __init__(self, field: Field, names: Sequence[str]) -> None:
        self._field, self._names = field, names
        self.tables = [fact.title for fact in field.facts]
        self._by_table = {
            name: np.mean([self._wins(name, at) for at in JUDGED_AT], axis=0) for name in names
        }

    def best(self, tables: Sequence[str]) -> str:
        """The setting that does best on some tables."""
        chosen = [self.tables.index(table) for table in tables]
        return max(self._names, key=lambda name: float(self._by_table[name][chosen].mean()))

    def chosen(self, choice: Mapping[str, str], at: float) -> Scores:
        """Scores of the setting chosen for each table."""
        return [
            self._field.scores(choice[table], Axis.TRIALS, at)[index]
            for index, table in enumerate(self.tables)
        ]

    def line(self, what: str, choice: Mapping[str, str]) -> str:
        """A row of the report."""
        cells = []
        for at in JUDGED_AT:
            ours = self.chosen(choice, at)
            cells.append(interquartile_mean(ours).text())
            for peer in PEERS:
                theirs = self._field.scores(peer, Axis.TRIALS, at)
                cells.append(probability_of_improvement(ours, theirs).text())
        return f"| {what} | " + " | ".join(cells) + " |"

    def _wins(self, name: str, at: float) -> list[float]:
        """The probability of improvement over random search on each table."""
        ours = self._field.scores(name, Axis.TRIALS, at)
        theirs = self._field.scores("random", Axis.TRIALS, at)
        return [
            float((np.sign(one[:, None] - other).mean() + 1) / 2)
            for one, other in zip(ours, theirs, strict=True)
        ]


def report(field: Field, names: Sequence[str]) -> str:
    """Markdown: what settings chosen elsewhere are worth, and which were chosen."""
    worth = Worth(field, names)
    tables = worth.tables
    apart = {table: worth.best([other for other in tables if other != table]) for table in tables}
    everywhere = worth.best(tables)
    head = "".join(f" at {at}: quality | than random | than evolutionary |" for at in JUDGED_AT)
    heading = [f"| settings |{head}", "|---|" + "---:|" * (3 * len(JUDGED_AT))]
    lines = [*heading]
    lines.append(worth.line("chosen on the other five tables", apart))
    halves = list(combinations(tables, len(tables) // 2))
    crossed = []
    for half in halves[: len(halves) // 2]:
        rest = [table for table in tables if table not in half]
        mine, theirs = worth.best(rest), worth.best(list(half))
        crossed.append({table: mine if table in half else theirs for table in tables})
    sample = crossed[:: max(1, len(crossed) // 3)][:3]
    lines += [
        worth.line(f"halves, each with the other's choice ({number})", choice)
        for number, choice in enumerate(sample, 1)
    ]
    lines.append(
        worth.line(f"chosen on all six: `{everywhere}`", dict.fromkeys(tables, everywhere))
    )
    default = f"storm-{GreedyConfig.storm}-{GreedyConfig.later_storm}-starts-{GreedyConfig.starts}"
    for name in ("before", default, f"{default}-forecast"):
        lines.append(worth.line(f"`{name}`", dict.fromkeys(tables, name)))
    lines += ["", "Chosen for each table on the others:", ""]
    lines += [f"- {table}: `{name}`" for table, name in apart.items()]
    lines += ["", "All that was tried, on all six:", "", *heading]
    lines += [worth.line(f"`{name}`", dict.fromkeys(tables, name)) for name in names]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--live", nargs="+", metavar="TASK", help="live, on these tasks")
    parser.add_argument("--seconds", type=float, default=60.0, help="budget of a live attempt")
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=1, help="attempts on tables at once")
    parser.add_argument("--out", type=Path, default=Path("out/greedy_settings"))
    parser.add_argument("--resume", action="store_true", help="go on with the race in --out")
    parser.add_argument("--to", type=Path, default=None, help="where to write the report")
    arguments = parser.parse_args()
    settings = live() if arguments.live else grid()
    peers = PEERS[:1] if arguments.live else PEERS
    entered = [*map(find_agent, peers), *(agent(*pair) for pair in settings.items())]
    arena = make_arena(
        entered, arguments.live or [], None if arguments.live else "all", arguments.out
    )
    request = Request(
        arena,
        arguments.seeds,
        None if arguments.live else max(JUDGED_AT),
        arguments.seconds if arguments.live else None,
        peers[0],
        arguments.out,
        arguments.resume,
        arguments.jobs,
    )
    field = raced(request)
    if arguments.live:
        scale = checkpoints_of(request.axis, request.limit)[1:]
        said = "\n\n".join(part(field, request, at) for at in scale) + "\n"
    else:
        said = report(field, list(settings))
    print(said)
    if arguments.to is not None:
        arguments.to.write_text(said)


if __name__ == "__main__":
    main()
