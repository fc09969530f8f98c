"""What is each level of the hierarchical agent worth?

    python runs/hierarchical_ablation.py --seeds 5 --out out/ablation --to runs/ablation_tables.md
    python runs/hierarchical_ablation.py --live gmm:1x128x128x128 --seconds 20 --out out/live

Our configuration and the paper's (`HierarchicalConfig()`, `PAPER`), each whole and with one level
off, race against random search: on the recorded tables, or with `--live` on this machine. For every
part of the budget: the quality (share of the best known speed, interquartile mean), and how likely
the agent is better than the whole one of its configuration, and than random search, with 95 %
intervals. Attempts are kept in `--out`: repeat the command with `--resume` to go on, also with more
seeds.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from schedenv_agents.hierarchical import PAPER, HierarchicalAgent, HierarchicalConfig

from schedenv.comparison.arenas import make_arena
from schedenv.comparison.attempts import Attempt, read_attempts
from schedenv.comparison.race import Request, Watcher, order_of, race
from schedenv.comparison.scores import Field
from schedenv.comparison.statistics import (
    interquartile_mean,
    probability_of_improvement,
)
from schedenv.comparison.summary import checkpoints_of
from schedenv.space import SearchSpace
from schedenv.tuning.agent import AgentFactory, TuningContext, find_agent

WHOLE = {"ours": HierarchicalConfig(), "paper": PAPER}
RANDOM = "random"


def configurations() -> dict[str, HierarchicalConfig]:
    """Each configuration, whole and with one level off, by name."""
    found = {}
    for name, whole in WHOLE.items():
        found[name] = whole
        found[f"{name}-random-moves"] = replace(whole, learn_policy=False)
        found[f"{name}-no-model"] = replace(whole, model=False)
        found[f"{name}-no-bandit"] = replace(whole, sketch_bandit=False)
        found[f"{name}-no-early-stop"] = replace(whole, adaptive_stop=False)
    return found


def agent(name: str, config: HierarchicalConfig) -> AgentFactory:
    """The hierarchical agent with a configuration."""

    def create(space: SearchSpace, seed: int, _: TuningContext | None) -> HierarchicalAgent:
        return HierarchicalAgent(space, seed, config)

    return AgentFactory(name, create)


class Lines(Watcher):
    """One line an attempt."""

    def made(self, attempt: Attempt) -> None:
        """Print what it reached."""
        best_us = attempt.curve[-1][2] * 1e6 if attempt.curve else float("nan")
        said = attempt.failure or f"{best_us:.2f} us after {attempt.trials} trials"
        print(attempt.task, attempt.agent, attempt.seed, said, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--live", nargs="+", metavar="TASK", help="live, on these tasks")
    parser.add_argument("--seconds", type=float, default=60.0, help="budget of a live attempt")
    parser.add_argument("--tables", default="all", help="without --live: names, or all")
    parser.add_argument("--trials", type=int, default=64, help="budget of an attempt on a table")
    parser.add_argument("--agents", nargs="+", choices=configurations(), help="by default all")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=1, help="attempts on tables at once")
    parser.add_argument("--out", type=Path, default=Path("out/hierarchical_ablation"))
    parser.add_argument("--resume", action="store_true", help="go on with the race in --out")
    parser.add_argument("--to", type=Path, default=None, help="where to write the report")
    arguments = parser.parse_args()
    known = configurations()
    names = arguments.agents or list(known)
    entered = [find_agent(RANDOM), *(agent(name, known[name]) for name in names)]
    tables = None if arguments.live else arguments.tables
    arena = make_arena(entered, arguments.live or [], tables, arguments.out)
    request = Request(
        arena,
        arguments.seeds,
        None if arguments.live else arguments.trials,
        arguments.seconds if arguments.live else None,
        RANDOM,
        arguments.out,
        arguments.resume,
        arguments.jobs,
    )
    text = report(request)
    print(text)
    if arguments.to is not None:
        arguments.to.write_text(text)


def raced(request: Request) -> Field:
    """Run a race, or what is left of it, and judge its attempts."""
    race(request, Lines())
    made, arena = read_attempts(request.out), request.arena
    keys = order_of(arena.tasks, arena.agents, request.seeds)
    facts, judged = arena.judge([made[key] for key in keys])
    return Field.of(arena.agents, facts, judged)


def report(request: Request) -> str:
    """Markdown: one table for each part of the budget."""
    field = raced(request)
    head = f"{len(field.facts)} tasks x {request.seeds} seeds, budget {request.limit:g} "
    parts = [head + request.axis.value]
    parts += [part(field, request, at) for at in checkpoints_of(request.axis, request.limit)[1:]]
    return "\n\n".join(parts) + "\n"


def part(
    field: Field,
    request: Request,
    at: float,
    others: Mapping[str, str] | None = None,
    other: str = "the whole agent",
) -> str:
    """The table of one part of the budget.

    Args:
        field: Of the race.
        request: The race.
        at: The part.
        others: Whom an agent is compared with, beside random search; None for the whole one.
        other: How the report calls these.
    """
    if others is None:
        others = {name: whole_of(name, field.agents) or name for name in field.agents}
    lines = [
        f"Within {at:g} {request.axis.value}:",
        "",
        f"| agent | quality | better than {other} | better than random |",
        "|---|---:|---:|---:|",
    ]
    for name in field.agents:
        ours = field.scores(name, request.axis, at)
        cells = [interquartile_mean(ours).text()]
        for rival in (others[name], RANDOM):
            if rival == name or rival not in field.agents:
                cells.append("-")
                continue
            theirs = field.scores(rival, request.axis, at)
            cells.append(probability_of_improvement(ours, theirs).text())
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def whole_of(name: str, agents: Sequence[str]) -> str | None:
    """The agent whose level is off in `name`; None if it is whole, or does not take part."""
    whole = name.partition("-")[0]
    return whole if whole != name and whole in agents else None


if __name__ == "__main__":
    main()
