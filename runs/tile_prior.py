"""The prior of `greedy-prior`: measure what it learns from, learn it, say what it is worth.

    python runs/tile_prior.py collect --out out/tile-prior [--seconds 55]
    python runs/tile_prior.py fit --out out/tile-prior [--to agents/tile_prior.ubj]
    python runs/tile_prior.py judge --out out/tile-prior --table runs/tile_prior.md [STORE...]

`collect` lets `greedy-trees` search each of `TASKS`, none of which is in the suite `core`; what is
done is not done again. `fit` learns from all that was measured. `judge` holds every family out in
turn: what the others teach ranks the points of its tasks by Spearman's correlation, all of them and
those alone that take less than twice the best. Then it asks the shipped prior for the points of
each STORE, the records of a search of any other task (`records.sqlite`).
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from knob_models import searched
from schedenv_agents.tile_features import TileFeatures
from schedenv_agents.tile_prior import TilePrior, fit
from scipy.stats import spearmanr

from schedenv import hardware as hw
from schedenv.comparison.arenas import LiveArena
from schedenv.comparison.contestant import contestant
from schedenv.space import Space
from schedenv.tasks import resolve_many
from schedenv.tuning.budget import Budget

Floats = npt.NDArray[np.float64]

TASKS = (
    *("gmm-1", "c1d-0", "c2d-2", "dep-0", "cap-1", "tbg-1", "cbr-1", "t2d-1", "grp-0", "dil-1"),
    *("c1d-3", "dep-3", "cbr-2", "cap-2", "t2d-2", "tbg-3", "grp-2", "gmm-3", "c1d-1", "dep-1"),
    *("c2d-0", "dil-2", "grp-1", "tbg-2"),
)
"""Members of the suite `ansor`, families in turn."""

AGENT = "greedy-trees"
GOOD = math.log(2)


def collect(out: Path, seconds: float) -> None:
    """Search every task that was not searched yet."""
    tasks = [task for name in TASKS for task in resolve_many(f"ansor/{name}")]
    out.mkdir(parents=True, exist_ok=True)
    arena = LiveArena([contestant(AGENT)], tasks, hw.detect(), out)
    for task in tasks:
        if not any(out.glob(pattern_of(task.name))):
            attempt = arena.attempt(task.name, AGENT, 0, Budget(seconds=seconds))
            print(f"{task.name}: {attempt.trials} trials, {attempt.failure or 'done'}", flush=True)


def pattern_of(name: str) -> str:
    """Where the records of a search of a task are."""
    return f"attempts/{name.replace('/', '%2F')}/{AGENT}/*/records.sqlite"


def examples(file: Path) -> tuple[Space, str, Floats, Floats]:
    """Of a search: its space, its task's name, features and log seconds of what could be timed."""
    space, name, points, logs = searched(file)
    timed = np.flatnonzero(np.isfinite(logs))
    return space, name, TileFeatures(space).of([points[index] for index in timed]), logs[timed]


def family_of(name: str) -> str:
    """`c2d` of `ansor/c2d-2`."""
    return name.rpartition("/")[2].partition("-")[0]


def ranking(expected: Floats, logs: Floats) -> str:
    """Two cells of the table: of all points, of the good ones."""
    good = logs < logs.min() + GOOD
    return f"{spearmanr(expected, logs)[0]:.2f} | {spearmanr(expected[good], logs[good])[0]:.2f}"


def judge(out: Path, stores: Sequence[Path]) -> list[str]:
    """The lines of the tables."""
    known = [examples(file) for name in TASKS for file in out.glob(pattern_of(f"ansor/{name}"))]
    lines = [
        "| held-out family's task | points | rank correlation | of the good ones |",
        "|---|---:|---:|---:|",
    ]
    for space, name, features, logs in known:
        others = [
            (theirs, log_s)
            for _, other, theirs, log_s in known
            if family_of(other) != family_of(name)
        ]
        prior = TilePrior(space, fit(others, TileFeatures(space).names))
        lines.append(f"| {name} | {len(logs)} | {ranking(prior.of_features(features), logs)} |")
        print(lines[-1], flush=True)
    lines += [
        "",
        "| task never seen by the shipped prior | points | rank correlation | of the good ones |",
        "|---|---:|---:|---:|",
    ]
    for file in stores:
        space, name, features, logs = examples(file)
        expected = TilePrior(space).of_features(features)
        lines.append(f"| {name} | {len(logs)} | {ranking(expected, logs)} |")
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    """Do what is asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=("collect", "fit", "judge"))
    parser.add_argument("stores", nargs="*", type=Path, metavar="STORE")
    parser.add_argument("--out", type=Path, default=Path("out/tile-prior"))
    parser.add_argument("--seconds", type=float, default=55.0, help="of each search")
    parser.add_argument("--to", type=Path, default=Path("agents/tile_prior.ubj"))
    parser.add_argument("--table", type=Path, help="write the tables here as well")
    arguments = parser.parse_args()
    if arguments.step == "collect":
        collect(arguments.out, arguments.seconds)
    elif arguments.step == "fit":
        files = [f for name in TASKS for f in arguments.out.glob(pattern_of(f"ansor/{name}"))]
        known = [examples(file) for file in files]
        names = TileFeatures(known[0][0]).names
        arguments.to.write_bytes(fit([(features, logs) for _, _, features, logs in known], names))
        print(
            f"{arguments.to}: {sum(len(logs) for *_, logs in known)} points of {len(known)} tasks"
        )
    else:
        lines = judge(arguments.out, arguments.stores)
        if arguments.table:
            arguments.table.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
