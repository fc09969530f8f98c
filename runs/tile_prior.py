"""The prior of `greedy-prior`: measure what it learns from, learn it, say what it is worth.

    python runs/tile_prior.py collect --out out/tile-prior [--seconds 55]
    python runs/tile_prior.py fit [--to agents/tile_prior.ubj]
    python runs/tile_prior.py judge --table runs/tile_prior.md [STORE...]

`collect` lets `greedy-trees` search each of `TASKS`, none of which is in the suite `core`, and
keeps what was measured in --points; a search that is in --out is not made again. `fit` learns from
those points. `judge` holds every family out in turn: what the others teach ranks the points of its
tasks, by Spearman's correlation, all of them and those alone that take less than twice the best.
Then it asks the shipped prior for the points of each STORE, the records of a search of any other
task (`records.sqlite`), and says how far the best of the 8 and the 32 that it ranks first is from
the best of all, beside the best of as many at random.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from knob_models import searched
from schedenv_agents.tile_features import TileFeatures
from schedenv_agents.tile_prior import TilePrior, fit
from scipy.stats import spearmanr

from schedenv import hardware as hw
from schedenv.comparison.arenas import LiveArena
from schedenv.comparison.contestant import contestant
from schedenv.space import Point, Space
from schedenv.tasks import resolve, resolve_many
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
FIRST = (8, 32)
DRAWS = 300

Example = tuple[str, Space, Floats, Floats]
"""A task's name, its space, features of its points, and their log seconds."""


def collect(out: Path, seconds: float, points: Path) -> None:
    """Search every task that was not searched yet, and keep what all have measured."""
    tasks = [task for name in TASKS for task in resolve_many(f"ansor/{name}")]
    out.mkdir(parents=True, exist_ok=True)
    arena = LiveArena([contestant(AGENT)], tasks, hw.detect(), out)
    rows: list[tuple[str, str, float]] = []
    for task in tasks:
        pattern = f"attempts/{task.name.replace('/', '%2F')}/{AGENT}/*/records.sqlite"
        if not any(out.glob(pattern)):
            attempt = arena.attempt(task.name, AGENT, 0, Budget(seconds=seconds))
            print(f"{task.name}: {attempt.trials} trials, {attempt.failure or 'done'}", flush=True)
        for file in out.glob(pattern):
            _, name, measured, logs = searched(file)
            seen = zip(measured, logs.tolist(), strict=True)
            rows += [(name, str(point), log_s) for point, log_s in seen if math.isfinite(log_s)]
    rows.sort(key=lambda row: row[0])
    columns = dict(zip(("task", "point", "log_s"), zip(*rows, strict=True), strict=True))
    table = pa.table({name: list(column) for name, column in columns.items()})
    pq.write_table(table.replace_schema_metadata({"machine": hw.detect().fingerprint}), points)


def examples(points: Path) -> list[Example]:
    """What was collected."""
    table = pq.read_table(points)
    found = []
    for name in dict.fromkeys(table["task"].to_pylist()):
        part = table.filter(pc.equal(table["task"], name))
        space = Space(resolve(name).mod, hw.detect())
        features = TileFeatures(space).of([Point.parse(t) for t in part["point"].to_pylist()])
        found.append((name, space, features, part["log_s"].to_numpy()))
    return found


def family_of(name: str) -> str:
    """`c2d` of `ansor/c2d-2`."""
    return name.rpartition("/")[2].partition("-")[0]


def ranking(expected: Floats, logs: Floats) -> str:
    """Two cells of the tables: of all points, of the good ones."""
    good = logs < logs.min() + GOOD
    return f"{spearmanr(expected, logs)[0]:.2f} | {spearmanr(expected[good], logs[good])[0]:.2f}"


def held_out(known: Sequence[Example]) -> list[str]:
    """What the other families teach of each task."""
    lines = [
        "| task of a family held out | points | rank correlation | of the good ones |",
        "|---|---:|---:|---:|",
    ]
    for name, space, features, logs in known:
        others = [
            (theirs, log_s)
            for other, _, theirs, log_s in known
            if family_of(other) != family_of(name)
        ]
        prior = TilePrior(space, fit(others, TileFeatures(space).names))
        lines.append(f"| {name} | {len(logs)} | {ranking(prior.of_features(features), logs)} |")
    return lines


def never_seen(stores: Sequence[Path]) -> list[str]:
    """What the shipped prior says of the points of searches of other tasks."""
    lines = [
        "| task that the prior has not seen | points | rank correlation | of the good ones "
        "| " + " | ".join(f"best of the first {count} (at random)" for count in FIRST) + " |",
        "|---|---:|---:|---:|" + "---:|" * len(FIRST),
    ]
    rng = np.random.default_rng(0)
    for file in stores:
        space, name, points, logs = searched(file)
        timed = np.flatnonzero(np.isfinite(logs))
        expected, logs = TilePrior(space).expect([points[index] for index in timed]), logs[timed]
        slower = np.exp(logs - logs.min())
        ranked = slower[np.argsort(expected, kind="stable")]
        cells = [
            f"{ranked[:count].min():.2f} "
            f"({np.mean([rng.choice(slower, count).min() for _ in range(DRAWS)]):.2f})"
            for count in FIRST
        ]
        lines.append(
            f"| {name} | {len(logs)} | {ranking(expected, logs)} | " + " | ".join(cells) + " |"
        )
    return lines


def main() -> None:
    """Do what is asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("step", choices=("collect", "fit", "judge"))
    parser.add_argument("stores", nargs="*", type=Path, metavar="STORE")
    parser.add_argument("--out", type=Path, default=Path("out/tile-prior"))
    parser.add_argument("--seconds", type=float, default=55.0, help="of each search")
    parser.add_argument("--points", type=Path, default=Path("runs/tile_prior.parquet"))
    parser.add_argument("--to", type=Path, default=Path("agents/tile_prior.ubj"))
    parser.add_argument("--table", type=Path, help="write the tables here as well")
    arguments = parser.parse_intermixed_args()
    if arguments.step == "collect":
        collect(arguments.out, arguments.seconds, arguments.points)
        return
    known = examples(arguments.points)
    if arguments.step == "fit":
        names = TileFeatures(known[0][1]).names
        arguments.to.write_bytes(fit([(features, logs) for *_, features, logs in known], names))
        return
    lines = [*held_out(known), "", *never_seen(arguments.stores)]
    print("\n".join(lines))
    if arguments.table:
        preface = "Made by `python runs/tile_prior.py judge`, which says what the columns mean.\n\n"
        arguments.table.write_text(preface + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
