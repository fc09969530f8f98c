"""Can a policy matter on the recorded tables, and does the learned one?

    python runs/policy_headroom.py --seeds 20 --jobs 16 --to runs/policy_headroom.md

The hierarchical agent searches with its moves chosen at random, by the policy that it learns on the
way, and by an oracle, which takes the neighbour that is truly the fastest (a search that knew the
table would not need any more; the oracle chooses where tracks go, what is measured of all that they
saw is still the model's choice). That with walks of the agent's own size, whose neighbours are all
candidates, and with walks so short that most of the table is never looked at. The share of the
table that the average walk looks at says how much is left for a policy to decide.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
from hierarchical_ablation import part, raced
from schedenv_agents.hierarchical import HierarchicalAgent, HierarchicalConfig
from schedenv_agents.hierarchical.encoding import Encoding
from schedenv_agents.hierarchical.policy import Policy
from schedenv_agents.hierarchical.tracks import Choices, Tracks

from schedenv.comparison.arenas import RecordedArena
from schedenv.comparison.race import Request
from schedenv.comparison.summary import checkpoints_of
from schedenv.measure.table import Table
from schedenv.measure.table_file import read_table, shipped_tables
from schedenv.space import Point, SearchSpace
from schedenv.tuning.agent import AgentFactory, TuningContext, find_agent

Floats = npt.NDArray[np.float64]

SIZES = {
    "whole": HierarchicalConfig(),
    "short": HierarchicalConfig(
        tracks=4, steps=4, fewest_tracks=1, score_neighbours=False, adaptive_stop=False
    ),
}
MOVES = ("random", "learned", "oracle")


class OracleTracks(Tracks):
    """Tracks that go where it is truly the fastest.

    Args:
        space: The points.
        config: As for `Tracks`.
        table: What every point takes.
    """

    def __init__(self, space: SearchSpace, config: HierarchicalConfig, table: Table) -> None:
        super().__init__(space, Encoding(space), config)
        self._table = table

    def log_odds(self, choices: Choices, _: Policy | None) -> Floats:
        """As good as certain for the fastest neighbour."""
        odds = np.full(choices.changes.shape[:2], -np.inf)
        for row, neighbours in zip(odds, choices.neighbours, strict=True):
            row[: len(neighbours)] = -100.0
            row[int(np.argmin([self._seconds(point) for point in neighbours]))] = 0.0
        return odds

    def _seconds(self, point: Point) -> float:
        return self._table.by_point[point].estimate_s or np.inf


def agent(size: str, moves: str, tables: dict[str, Table]) -> AgentFactory:
    """The agent with walks of a size, moved by somebody."""
    config = replace(SIZES[size], learn_policy=moves == "learned")
    by_task = {table.info.task.name: table for table in tables.values()}

    def create(space: SearchSpace, seed: int, context: TuningContext | None) -> HierarchicalAgent:
        assert context is not None
        tracks = None
        if moves == "oracle":
            tracks = OracleTracks(space, config, by_task[context.task.name])
        return HierarchicalAgent(space, seed, config, tracks=tracks)

    return AgentFactory(f"{size}-{moves}", create)


def coverage(table: Table, size: str, walks: int = 20) -> tuple[float, float]:
    """Shares of a table that a walk visits and looks at, moves at random from random starts."""
    space, config = table.space(), SIZES[size]
    tracks, rng = Tracks(space, Encoding(space), config), np.random.default_rng(0)
    found = []
    for _ in range(walks):
        walk = tracks.walk([space.sample(rng) for _ in range(config.tracks)], None, None, rng)
        found.append((len(walk.visited), len(walk.seen)))
    visited, seen = np.mean(found, axis=0) / space.size()
    return float(visited), float(seen)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--trials", type=int, default=32)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=1, help="attempts at once")
    parser.add_argument("--out", type=Path, default=Path("out/policy_headroom"))
    parser.add_argument("--resume", action="store_true", help="go on with the race in --out")
    parser.add_argument("--to", type=Path, default=None, help="where to write the report")
    arguments = parser.parse_args()
    tables = {name: read_table(path) for name, path in shipped_tables().items()}
    entered = [agent(size, moves, tables) for size in SIZES for moves in MOVES]
    arena = RecordedArena([find_agent("random"), *entered], tables)
    request = Request(
        arena,
        arguments.seeds,
        arguments.trials,
        None,
        "random",
        arguments.out,
        arguments.resume,
        arguments.jobs,
    )
    field = raced(request)
    lines = [
        "| walks | visited points, share of the table | and their neighbours |",
        "|---|---:|---:|",
    ]
    for size in SIZES:
        visited, seen = np.mean([coverage(table, size) for table in tables.values()], axis=0)
        lines.append(f"| {size} | {visited:.0%} | {seen:.0%} |")
    parts = ["\n".join(lines)]
    scale = checkpoints_of(request.axis, request.limit)[1:]
    others = {name: f"{name.partition('-')[0]}-random" for name in arena.agents}
    parts += [part(field, request, at, others, "moves at random") for at in scale]
    said = "\n\n".join(parts) + "\n"
    print(said)
    if arguments.to is not None:
        arguments.to.write_text(said)


if __name__ == "__main__":
    main()
