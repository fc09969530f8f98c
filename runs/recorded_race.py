"""Agents against each other on recorded tables, exactly and offline; write the table.

    python runs/recorded_race.py [--agents random,evolutionary,droplet,greedy] [--seeds 100]
        [--tables DIR] [--to runs/recorded_race.md]

Every agent gets the same simulated seconds on every table. What counts is the fraction of the
known optimum's speed that its best candidate reaches; ratios are to the first agent named.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt

from schedenv.errors import InputError
from schedenv.measure.recorded import total_cost_s
from schedenv.measure.table import Table
from schedenv.measure.table_file import read_table, shipped_tables
from schedenv.tuning import Budget
from schedenv.tuning.simulate import simulate

SHARES = (0.02, 0.05, 0.1, 0.2, 0.4)
"""Where agents are compared: parts of the simulated seconds that measuring everything takes."""

NOTHING = 1e-3
"""Counts for nothing found yet: its logarithm is needed."""

BOOTSTRAPS = 4000

Logs = npt.NDArray[np.float64]


def fractions(table: Table, agent: str, seeds: int) -> Logs:
    """Log fraction of the optimum, shape (seeds, shares)."""
    whole_s = total_cost_s(table)
    rows = []
    for seed in range(seeds):
        run = simulate(table, agent, Budget(seconds=SHARES[-1] * whole_s), seed)
        rows.append([max(NOTHING, run.fraction_at(share * whole_s)) for share in SHARES])
    return np.log(np.array(rows))


def geometric_mean(logs: list[Logs], share: int) -> tuple[float, float, float]:
    """Over all tables, with the 95 % interval of a bootstrap over the seeds of each table.

    Returns:
        Low end, mean and high end.
    """
    rng = np.random.default_rng(0)
    draws = np.zeros(BOOTSTRAPS)
    for table in logs:
        picks = rng.integers(len(table), size=(BOOTSTRAPS, len(table)))
        draws += table[picks, share].mean(axis=1)
    low, high = np.quantile(draws / len(logs), [0.025, 0.975])
    mean = np.mean([table[:, share].mean() for table in logs])
    return float(np.exp(low)), float(np.exp(mean)), float(np.exp(high))


def cell(interval: tuple[float, float, float]) -> str:
    low, mean, high = interval
    return f"{mean:.3f} ({low:.3f} to {high:.3f})"


def about_tables(tables: dict[str, Table]) -> list[str]:
    """The tables as lines of Markdown."""
    lines = [
        "| table | task | points | failed | optimum, us | may be as fast | within 5 % "
        "| all of it, s |",
        "|---|---|---:|---:|---:|---:|---:|---:|",
    ]
    for name, table in tables.items():
        timed = [row.estimate_s for row in table.rows if row.estimate_s is not None]
        near = sum(time_s <= 1.05 * table.optimum_s for time_s in timed)
        lines.append(
            f"| {name} | `{table.info.task.spec}` | {len(table.rows)} "
            f"| {len(table.rows) - len(timed)} | {table.optimum_s * 1e6:.1f} "
            f"| {len(table.info.optimum.ties) - 1} | {near} | {total_cost_s(table):.0f} |"
        )
    return lines


def race(tables: dict[str, Table], agents: list[str], seeds: int) -> list[str]:
    """The comparison as lines of Markdown."""
    logs = {agent: [fractions(t, agent, seeds) for t in tables.values()] for agent in agents}
    lines = [
        "| simulated seconds, part of the table's | " + " | ".join(agents) + " | "
        + " | ".join(f"{agent} / {agents[0]}" for agent in agents[1:]) + " |",
        "|---|" + "---:|" * (2 * len(agents) - 1),
    ]  # fmt: skip
    for index, share in enumerate(SHARES):
        cells = [cell(geometric_mean(logs[agent], index)) for agent in agents]
        for agent in agents[1:]:
            # Agents that begin with random points draw the same ones from the same seed.
            pairs = zip(logs[agents[0]], logs[agent], strict=True)
            cells.append(cell(geometric_mean([b - a for a, b in pairs], index)))
        lines.append(f"| {share:.0%} | " + " | ".join(cells) + " |")
    lines += ["", "By table, at the last line's seconds:", ""]
    lines += ["| table | " + " | ".join(agents) + " |", "|---|" + "---:|" * len(agents)]
    for position, name in enumerate(tables):
        cells = [cell(geometric_mean([logs[agent][position]], -1)) for agent in agents]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--agents", default="random,evolutionary,droplet,greedy")
    parser.add_argument("--seeds", type=int, default=100)
    parser.add_argument("--tables", type=Path, default=None, help="Folder; default the shipped.")
    parser.add_argument("--to", type=Path, default=None, help="Markdown file to write.")
    arguments = parser.parse_args()
    paths = shipped_tables()
    if arguments.tables is not None:
        paths = {path.stem: path for path in sorted(arguments.tables.glob("*.parquet"))}
    if not paths:
        raise InputError("there is no table; record some with: python runs/record_tables.py")
    tables = {name: read_table(path) for name, path in paths.items()}
    agents = arguments.agents.split(",")
    lines = [
        "# Agents on recorded tables",
        "",
        f"Made by `python runs/recorded_race.py --agents {arguments.agents} --seeds "
        f"{arguments.seeds}`. Geometric means over all tables and {arguments.seeds} seeds of the "
        "fraction of the known optimum's speed that the best candidate reaches, with 95 % "
        "intervals (bootstrap over seeds). They say how well agents search these tables; the "
        "tables themselves are a fixed choice, and other tasks may rank agents differently.",
        "",
        *race(tables, agents, arguments.seeds),
        "",
        *about_tables(tables),
    ]
    if arguments.to is not None:
        arguments.to.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
