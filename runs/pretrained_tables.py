"""Is the hierarchical agent better for having been trained on other tables?

    python runs/pretrained_tables.py --seeds 20 --jobs 16 --work out/pretrained \
        --to runs/pretrained_tables.md --picture runs/pretrained_tables.png

For every table the agent is trained on the five others, with several training seeds, and judged on
the one left out: `hierarchical-pretrained` searches it beside the agent that begins with nothing,
random and evolutionary search, and beside itself with one part of what it learned, the scales of
its model or the weights of its policy, the latter also in walks so short that a policy could matter
(`policy_headroom.py`). Its run with seed s has what training seed s modulo their number brought.
While a policy is trained it is evaluated by tracks on the tables that it learns and on the one that
it never sees: the learning curves. Checkpoints are kept in `--work` and attempts in `--work/race`,
so the command can be stopped and repeated (`--resume`).
"""

from __future__ import annotations

import argparse
import csv
import multiprocessing
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from hierarchical_ablation import part, raced
from policy_headroom import SIZES
from schedenv_agents.hierarchical import HierarchicalAgent, HierarchicalConfig
from schedenv_agents.hierarchical.policy import Arrays
from schedenv_agents.hierarchical.training import HierarchicalTrainer, TrackPolicy

from schedenv.comparison.arenas import RecordedArena
from schedenv.comparison.race import Request
from schedenv.comparison.summary import checkpoints_of
from schedenv.measure.table_file import read_table, shipped_tables
from schedenv.space import SearchSpace
from schedenv.training import load_policy
from schedenv.training import train as training
from schedenv.training.checkpoint import INFO_FILE, read_info
from schedenv.training.sources import Sources
from schedenv.training.untrained import untrained
from schedenv.tuning.agent import AgentFactory, TuningContext, find_agent

PRETRAINED = "hierarchical-pretrained"
WHOLE, SHORT = SIZES["whole"], SIZES["short"]
NETWORKS = ("actor", "critic")
TAUGHT: dict[str, tuple[HierarchicalConfig, tuple[str, ...]]] = {
    PRETRAINED: (WHOLE, (*NETWORKS, "model")),
    "scales-only": (WHOLE, ("model",)),
    "policy-only": (WHOLE, NETWORKS),
    "short-policy-only": (SHORT, NETWORKS),
    "short-untaught": (SHORT, ()),
}
"""Contestants: how long their walks are (`policy_headroom.py`), and what they have of the training,
the policy's networks or the model's scales."""
PEERS = ("random", "evolutionary", "greedy", "hierarchical")
TRACK_STEPS = 8
CURVE = "curve.csv"
GROUPS = {"learned": "env/evaluated_share_of_optimum", "held out": "env/held_out_share_of_optimum"}

Doubles = npt.NDArray[np.float64]


def train_apart(work: Path, table: str, seed: int, marks: Sequence[int]) -> None:
    """Train on all tables but one until every mark in turn, and note what is reached there."""
    out = work / f"{table}-{seed}"
    sources = Sources.of(
        [name for name in sorted(shipped_tables()) if name != table], [], [table], None
    )
    kept = out / CURVE
    rows = _read(kept) if kept.exists() else []
    for mark in marks:
        resume = (out / INFO_FILE).exists()
        if resume and read_info(out).steps >= mark:
            continue
        request = training.Request(
            "hierarchical", sources, None, mark, seed, out, resume=resume, max_steps=TRACK_STEPS
        )
        info = training.train(request).info
        if not rows:
            judge = HierarchicalTrainer.make_evaluator(sources, TRACK_STEPS)
            rows.append(_row(0, judge(untrained(load_policy(out)).policy)))
        rows.append(_row(info.steps, info.metrics))
        with kept.open("w", newline="") as file:
            csv.writer(file).writerows(rows)


def _read(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


def _row(steps: int, metrics: Mapping[str, float]) -> list[str]:
    return [str(steps), *(f"{metrics[name]:.5f}" for name in GROUPS.values())]


def curves(work: Path, tables: Sequence[str], seeds: int) -> tuple[Doubles, Doubles]:
    """Steps, shape (k,), and shares of the optimum, shape (runs, k, groups)."""
    read = [
        np.array(
            [
                [float(cell) for cell in row]
                for row in csv.reader((work / f"{t}-{s}" / CURVE).open())
            ]
        )
        for t in tables
        for s in range(seeds)
    ]
    return read[0][:, 0], np.stack([one[:, 1:] for one in read])


def curve_table(steps: Doubles, shares: Doubles) -> str:
    """Markdown of the learning curves."""
    lines = ["| steps | " + " | ".join(GROUPS) + " |", "|---:|" + "---:|" * len(GROUPS)]
    for number, step in enumerate(steps):
        cells = [
            f"{shares[:, number, group].mean():.3f} ± {_error(shares[:, number, group]):.3f}"
            for group in range(len(GROUPS))
        ]
        lines.append(f"| {step:.0f} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _error(values: Doubles) -> float:
    """Standard error of the mean."""
    return float(values.std(ddof=1) / np.sqrt(len(values)))


def draw(steps: Doubles, shares: Doubles, path: Path) -> None:
    """The learning curves: means and standard errors over tables left out and training seeds."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
    for group, name in enumerate(GROUPS):
        mean = shares[:, :, group].mean(axis=0)
        error = np.array([_error(column) for column in shares[:, :, group].T])
        axes.plot(steps, mean, marker="o", markersize=3, label=f"tables {name}")
        axes.fill_between(steps, mean - error, mean + error, alpha=0.2)
    axes.set(xlabel="training steps", ylabel=f"share of the optimum, {TRACK_STEPS} moves")
    axes.legend(frameon=False)
    figure.savefig(path, dpi=120)


def pretrained(name: str, weights: Mapping[str, Sequence[Arrays]]) -> AgentFactory:
    """The agent with a part of what was learned on other tables than it searches; by task."""
    config, parts = TAUGHT[name]

    def its(learned: Arrays) -> Arrays:
        return {key: array for key, array in learned.items() if key.startswith(parts)}

    def create(space: SearchSpace, seed: int, context: TuningContext | None) -> HierarchicalAgent:
        assert context is not None
        of_task = weights[context.task.name]
        return HierarchicalAgent(space, seed, config, its(of_task[seed % len(of_task)]))

    return AgentFactory(name, create)


def weights_of(folder: Path) -> Arrays:
    """What a checkpoint's policy has learned."""
    policy = load_policy(folder).policy
    assert isinstance(policy, TrackPolicy)
    return policy.weights


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--marks", type=int, nargs="+", default=[4000, 8000, 16000, 32000, 64000])
    parser.add_argument("--training-seeds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=64)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--jobs", type=int, default=1, help="trainings, then attempts, at once")
    parser.add_argument("--work", type=Path, default=Path("out/pretrained"))
    parser.add_argument("--resume", action="store_true", help="go on with the race in --work")
    parser.add_argument("--to", type=Path, default=None, help="where to write the report")
    parser.add_argument("--picture", type=Path, default=None, help="where to draw the curves")
    arguments = parser.parse_args()
    tables = {name: read_table(path) for name, path in sorted(shipped_tables().items())}
    runs = [
        (arguments.work, table, seed, arguments.marks)
        for seed in range(arguments.training_seeds)
        for table in tables
    ]
    # A new process for each: torch's threads do not survive a fork.
    with multiprocessing.get_context("spawn").Pool(arguments.jobs, maxtasksperchild=1) as pool:
        pool.starmap(train_apart, runs, chunksize=1)
    steps, shares = curves(arguments.work, list(tables), arguments.training_seeds)
    weights = {
        table.info.task.name: [
            weights_of(arguments.work / f"{name}-{seed}")
            for seed in range(arguments.training_seeds)
        ]
        for name, table in tables.items()
    }
    arena = RecordedArena(
        [*map(find_agent, PEERS), *(pretrained(name, weights) for name in TAUGHT)], tables
    )
    out = arguments.work / "race"
    request = Request(
        arena, arguments.seeds, arguments.trials, None, PEERS[0], out, arguments.resume,
        arguments.jobs,
    )  # fmt: skip
    field = raced(request)
    others = dict.fromkeys(field.agents, "evolutionary")
    parts = [
        part(field, request, at, others, "evolutionary")
        for at in checkpoints_of(request.axis, request.limit)[1:]
    ]
    untaught = dict.fromkeys(field.agents, "hierarchical") | {"short-policy-only": "short-untaught"}
    parts += [
        part(field, request, at, untaught, "the untaught one")
        for at in checkpoints_of(request.axis, request.limit)[1:4]
    ]
    said = "\n\n".join([curve_table(steps, shares), *parts]) + "\n"
    print(said)
    if arguments.to is not None:
        arguments.to.write_text(said)
    if arguments.picture is not None:
        draw(steps, shares, arguments.picture)


if __name__ == "__main__":
    main()
