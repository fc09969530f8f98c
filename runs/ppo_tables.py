"""MaskablePPO on recorded tables: what part of the known optimum does it reach?

    python runs/ppo_tables.py --seconds 120 --seeds 0 1 2 3 4 --work out/ppo_tables

For every seed one policy is trained on all tables, and one for each part of the tables, which it
never sees. Each is then judged on every table by episodes of 32 steps from the same random starts:
the best latency met within 4, 8, 16 and 32 steps, and the one where the episode ends, as shares of
the optimum's speed. Beside it, on the same tables and from the same starts:

- the best possible: the fastest point that legal moves reach in so many steps;
- the same policies with actions drawn from their distribution, STOP never;
- a random policy: legal actions in the same environment, STOP never;
- random search: as many look-ups in the table, the start included, of points drawn at random.

Policies are kept in `--work` and not trained twice, so the command can be stopped and repeated.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from schedenv.envs.batch_actions import BatchActions
from schedenv.envs.layout import Layout
from schedenv.envs.vector import EditVectorEnv
from schedenv.envs.vector_recorded import successor_table
from schedenv.measure.table import Table
from schedenv.measure.table_file import read_table, shipped_tables
from schedenv.space.batch_part import BatchPart
from schedenv.training import Policy, RandomPolicy, Rollout, load_policy, roll_out
from schedenv.training.checkpoint import INFO_FILE, read_info
from schedenv.training.sources import Sources
from schedenv.training.train import Request, train

STEPS = (4, 8, 16, 32)
EPISODES = 512
START_SEED = 1_000_000
WHO = (
    "best possible",
    "ppo, trained on it",
    "ppo, trained on it, drawn",
    "ppo, never saw it",
    "ppo, never saw it, drawn",
    "random policy",
    "random search",
)

Doubles = npt.NDArray[np.float64]


def trained(
    seen: Sequence[str], held_out: Sequence[str], seconds: float, seed: int, out: Path
) -> Policy:
    """A policy trained for so many seconds, or the one that was."""
    resume = (out / INFO_FILE).exists()
    if not resume or read_info(out).seconds < seconds:
        sources = Sources.of(seen, [], held_out, None)
        train(Request("ppo", sources, seconds, None, seed, out, resume=resume))
    return load_policy(out)


def shares(rollout: Rollout) -> list[float | None]:
    """The share of the optimum within each of `STEPS`, and where the episodes ended."""
    return [*(rollout.share(steps) for steps in STEPS), rollout.final_share]


def drawn(policy: Policy, envs: EditVectorEnv, seed: int) -> list[float | None]:
    """The shares of a policy whose actions are drawn, and that never stops."""
    rng = np.random.default_rng(seed)
    return shares(roll_out(policy, envs, seed=START_SEED, rng=rng, may_stop=False))


def best_possible(table: Table, starts: Sequence[str]) -> list[float | None]:
    """The mean over starts of the share of the fastest point within each of `STEPS` moves."""
    batch = BatchPart(table.space())
    there = successor_table(batch, BatchActions(batch, Layout()))
    speeds = np.array([1.0 / row.estimate_s if row.estimate_s else 0.0 for row in table.rows])
    works = speeds > 0
    numbers = {str(row.point): number for number, row in enumerate(table.rows)}
    at = np.array([numbers[start] for start in starts])
    reached, found = speeds, []
    for step in range(1, max(STEPS) + 1):
        beyond = np.where((there >= 0) & works[there], reached[there], 0.0).max(axis=1)
        reached = np.maximum(reached, beyond)
        if step in STEPS:
            found.append(float(reached[at].mean() * table.optimum_s))
    return [*found, found[-1]]


def random_search(table: Table) -> list[float | None]:
    """The expected best share of so many points drawn, with replacement."""
    speeds = np.sort([1.0 / row.estimate_s if row.estimate_s else 0.0 for row in table.rows])
    ranks = np.arange(len(speeds) + 1) / len(speeds)
    found = [
        float((speeds * np.diff(ranks ** (steps + 1))).sum() * table.optimum_s) for steps in STEPS
    ]
    return [*found, None]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", help="files or names; by default all shipped tables")
    parser.add_argument("--folds", type=int, default=3, help="parts of which one is held out")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4])
    parser.add_argument("--held-out-seconds", type=float, default=120.0, help="for each part")
    parser.add_argument("--held-out-seeds", type=int, default=5, help="of the seeds, the first")
    parser.add_argument("--work", type=Path, default=Path("out/ppo_tables"))
    parser.add_argument("--to", type=Path, default=None, help="where to write the report")
    arguments = parser.parse_args()
    tables = arguments.tables or sorted(shipped_tables())
    parts = [[], *(tables[k :: arguments.folds] for k in range(arguments.folds))]
    envs = {
        name: EditVectorEnv(
            EPISODES, reward="recorded", table=name, max_steps=STEPS[-1], autoreset_mode="same_step"
        )
        for name in tables
    }
    rows: list[dict[str, Any]] = []

    def note(who: str, name: str, seed: int | None, found: Sequence[float | None]) -> None:
        rows.append({"table": Path(name).stem, "who": who, "seed": seed, "shares": list(found)})
        print(json.dumps(rows[-1]), flush=True)

    for name in tables:
        table = read_table(shipped_tables().get(name, Path(name)))
        _, info = envs[name].reset(seed=START_SEED)
        note("best possible", name, None, best_possible(table, info["point"].tolist()))
        note("random search", name, None, random_search(table))
        for seed in arguments.seeds:
            note("random policy", name, seed, drawn(RandomPolicy(), envs[name], seed))
    for number, held_out in enumerate(parts):
        seen = [name for name in tables if name not in held_out]
        seeds = arguments.seeds[: arguments.held_out_seeds] if held_out else arguments.seeds
        for seed in seeds:
            out = arguments.work / f"part-{number}-seed-{seed}"
            seconds = arguments.held_out_seconds if held_out else arguments.seconds
            policy = trained(seen, held_out, seconds, seed, out)
            for name in held_out or tables:
                who = "ppo, never saw it" if held_out else "ppo, trained on it"
                note(who, name, seed, shares(roll_out(policy, envs[name], seed=START_SEED)))
                note(f"{who}, drawn", name, seed, drawn(policy, envs[name], seed))
    if arguments.to is not None:
        arguments.to.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
        arguments.to.write_text(report(rows))


def report(rows: Sequence[dict[str, Any]]) -> str:
    """A Markdown table: means over the seeds, with 95 % intervals (Student's t)."""
    lines = [
        "| table | who | " + " | ".join(f"{k} steps" for k in STEPS) + " | where it ends |",
        "|---|---|" + "---|" * (len(STEPS) + 1),
    ]
    names = list(dict.fromkeys(row["table"] for row in rows))
    for name in [*names, "**mean**"]:
        for who in WHO:
            own = [row for row in rows if row["who"] == who and name in (row["table"], "**mean**")]
            if own:
                lines.append(f"| {name} | {who} | " + " | ".join(_cells(own)) + " |")
    return "\n".join(lines) + "\n"


def _cells(rows: Sequence[dict[str, Any]]) -> list[str]:
    seeds = sorted({row["seed"] for row in rows}, key=str)
    cells = []
    for column in range(len(STEPS) + 1):
        if rows[0]["shares"][column] is None:
            cells.append("")
            continue
        means = [np.mean([r["shares"][column] for r in rows if r["seed"] == s]) for s in seeds]
        text = f"{np.mean(means):.3f}"
        if len(means) > 1:
            half = stats.t.ppf(0.975, len(means) - 1) * stats.sem(means)
            text += f" ± {half:.3f}"
        cells.append(text)
    return cells


if __name__ == "__main__":
    main()
