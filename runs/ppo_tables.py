"""MaskablePPO on recorded tables: what part of the known optimum does it reach?

    python runs/ppo_tables.py --seconds 120 --seeds 5 --out runs/ppo_tables

One policy is trained on all tables but those held out, for so many seconds of wall time (the same
for every seed). Then it is judged on every table, trained on or not, by episodes of at most 32
steps from random starts, STOP masked: the best latency met, as a fraction of the known optimum's.
Beside it, on the same tables and with the same number of candidates: random legal actions in the
same environment, and points drawn at random from the table.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import torch
from sb3_contrib import MaskablePPO
from stable_baselines3.common.callbacks import BaseCallback

import schedenv  # noqa: F401 - registers the environments
from schedenv.envs import MAX_STEPS
from schedenv.envs.actions import STOP
from schedenv.envs.sb3 import EditVecEnv
from schedenv.envs.vector import EditVectorEnv
from schedenv.measure.table_file import read_table, shipped_tables

ENVS = 64
Policy = Callable[[dict[str, Any], np.ndarray], int]


class Deadline(BaseCallback):
    """Ends training after so many seconds."""

    def __init__(self, seconds: float) -> None:
        super().__init__()
        self._end = time.monotonic() + seconds

    def _on_step(self) -> bool:
        return time.monotonic() < self._end


def train(tables: Sequence[str], seconds: float, seed: int) -> MaskablePPO:
    """Train one policy on all tables."""
    envs = EditVectorEnv(ENVS, reward="recorded", table=list(tables), autoreset_mode="same_step")
    model = MaskablePPO(
        "MultiInputPolicy",
        EditVecEnv(envs),
        n_steps=64,
        batch_size=1024,
        n_epochs=4,
        learning_rate=1e-3,
        gamma=0.97,
        ent_coef=0.01,
        policy_kwargs={"net_arch": [128, 128]},
        seed=seed,
    )
    model.learn(10**9, callback=Deadline(seconds))
    return model


def judge(table: str, policy: Policy, episodes: int, seed: int) -> float:
    """Mean over episodes of the fraction of the optimum that the best latency met is."""
    env = gymnasium.make("schedenv/Edit-v0", reward="recorded", table=table)
    reached = []
    for episode in range(episodes):
        observation, info = env.reset(seed=seed * 1_000_003 + episode)
        over = False
        while not over:
            mask = env.unwrapped.action_masks()
            # The best point met counts, so stopping early only loses candidates.
            mask[STOP] = not mask[STOP + 1 :].any()
            action = policy(observation, mask)
            observation, _, terminated, truncated, info = env.step(action)
            over = terminated or truncated
        reached.append(info["optimum_fraction"])
    env.close()
    return float(np.mean(reached))


def random_policy(seed: int) -> Policy:
    """Any legal action."""
    rng = np.random.default_rng(seed)
    return lambda _, mask: int(rng.choice(np.flatnonzero(mask)))


def random_search(table: str, episodes: int, seed: int) -> float:
    """As many points as an episode meets, drawn from the table."""
    recorded = read_table(shipped_tables().get(table, Path(table)))
    seconds = np.array([row.estimate_s or np.inf for row in recorded.rows])
    rng = np.random.default_rng(seed)
    drawn = rng.integers(len(seconds), size=(episodes, MAX_STEPS + 1))
    return float(np.mean(recorded.optimum_s / seconds[drawn].min(axis=1)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="*", help="files or names; by default all shipped tables")
    parser.add_argument("--held-out", nargs="*", help="by default every fourth table")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--episodes", type=int, default=50)
    parser.add_argument("--out", type=Path, default=Path("runs/ppo_tables"))
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    tables = arguments.tables or sorted(shipped_tables())
    held_out = tables[3::4] if arguments.held_out is None else arguments.held_out
    seen = [table for table in tables if table not in held_out]
    rows = []
    for seed in range(arguments.seeds):
        started_s = time.monotonic()
        model = train(seen, arguments.seconds, seed)
        trained_s, steps = time.monotonic() - started_s, model.num_timesteps

        def trained(seen_now: dict[str, Any], mask: np.ndarray, model: Any = model) -> int:
            return int(model.predict(seen_now, action_masks=mask)[0])

        for table in [*seen, *held_out]:
            row = {
                "seed": seed,
                "table": Path(table).stem,
                "held_out": table in held_out,
                "ppo": judge(table, trained, arguments.episodes, seed),
                "random_policy": judge(table, random_policy(seed), arguments.episodes, seed),
                "random_search": random_search(table, arguments.episodes, seed),
                "train_s": trained_s,
                "train_steps": steps,
            }
            rows.append(row)
            print(json.dumps(row), flush=True)
    arguments.out.with_suffix(".json").write_text(json.dumps(rows, indent=1) + "\n")
    arguments.out.with_suffix(".md").write_text(report(rows))


def report(rows: Sequence[dict[str, Any]]) -> str:
    """A table of means over the seeds, and the lowest and highest seed."""
    lines = [
        "| table | trained on | MaskablePPO | lowest, highest seed | random policy | "
        "random search |",
        "|---|---|---|---|---|---|",
    ]
    tables = list(dict.fromkeys((row["table"], row["held_out"]) for row in rows))
    for table, held_out in tables:
        own = [row for row in rows if row["table"] == table]
        lines.append(_line(table, "no" if held_out else "yes", own))
    for held_out, name in ((False, "all trained on"), (True, "all held out")):
        group = [row for row in rows if row["held_out"] is held_out]
        if group:
            lines.append(_line(f"**{name}**", "no" if held_out else "yes", group))
    return "\n".join(lines) + "\n"


def _line(name: str, seen: str, rows: Sequence[dict[str, Any]]) -> str:
    by_seed = [
        np.mean([row["ppo"] for row in rows if row["seed"] == seed])
        for seed in sorted({row["seed"] for row in rows})
    ]
    others = [np.mean([row[key] for row in rows]) for key in ("random_policy", "random_search")]
    return (
        f"| {name} | {seen} | {np.mean(by_seed):.3f} | {min(by_seed):.3f}, {max(by_seed):.3f} | "
        f"{others[0]:.3f} | {others[1]:.3f} |"
    )


if __name__ == "__main__":
    main()
