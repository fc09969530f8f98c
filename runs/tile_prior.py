"""The prior of `greedy-prior`: measure what it learns from, learn it, say what it is worth.

    python runs/tile_prior.py collect --round 0 --out out/tile-prior [--seconds 55]
    python runs/tile_prior.py collect --round 1 --out out/tile-prior [--seconds 55]
    python runs/tile_prior.py collect --round 2 --out out/tile-prior [--seconds 55]
    python runs/tile_prior.py fit [--to agents/tile_prior.ubj]
    python runs/tile_prior.py judge --table runs/tile_prior.md [STORE...]

`collect` searches each task of a round of `ROUNDS`, none of which is in the suite `core`, and keeps
what was measured in --points, with what the rounds before measured; a search that is in --out is
not made again. The agent of round 0 knows nothing before it starts; that of round 1 is
`greedy-prior` with what round 0 taught it (`fit` in between), so that what it measures shows where
it was wrong. `fit` learns from all the points. `judge` holds every family out in turn: what the
others teach ranks the points of its tasks, by Spearman's correlation, all of them and those alone
that take less than twice the best. Then it asks the shipped prior for the points of each STORE, the
records of a search of any other task (`records.sqlite`), and says how far the best of the 8 and the
32 that it ranks first is from the best of all, beside the best of as many at random.
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

SUITE = (
    *("gmm-1", "c1d-0", "c2d-2", "dep-0", "cap-1", "tbg-1", "cbr-1", "t2d-1", "grp-0", "dil-1"),
    *("c1d-3", "dep-3", "cbr-2", "cap-2", "t2d-2", "tbg-3", "grp-2", "gmm-3", "c1d-1", "dep-1"),
    *("c2d-0", "dil-2", "grp-1", "tbg-2"),
)
"""Members of the suite `ansor`, families in turn."""

SHAPES = (
    *("gmm:1x256x256x256", "c1d:1x128x96x192x3x1x1", "c2d:1x28x28x128x128x3x1x1"),
    *("dep:1x56x56x128x3x1x1", "t2d:1x8x8x128x64x4x2x1", "cbr:1x28x28x96x128x3x1x1"),
    *("tbg:1x128x8x64", "grp:1x28x28x128x128x3x1x1", "cap:1x16x16x16x16x3x1x1"),
    *("gmm:1x384x64x768", "t2d:1x4x4x256x256x4x2x1", "c2d:1x14x14x512x256x1x1x0"),
    *("c1d:1x64x128x128x5x1x2", "dep:1x28x28x256x3x2x1", "cbr:1x14x14x256x256x3x1x1"),
    *("tbg:1x96x12x64", "gmm:4x128x128x64", "t2d:1x16x16x64x32x4x2x1"),
    *("grp:1x14x14x512x512x1x1x0", "c2d:1x56x56x32x96x1x1x0", "cap:1x8x8x16x32x3x1x1"),
    *("dil:1x14x14x128x128x3x1x1", "gmm:1x196x512x256", "c2d:1x7x7x256x512x3x1x1"),
    *("dep:1x14x14x384x5x1x2", "cbr:1x56x56x64x64x1x1x0", "t2d:1x32x32x32x16x4x2x1"),
    *("c1d:1x512x32x64x7x2x3", "tbg:1x256x4x64", "gmm:1x64x1024x256"),
)
"""Others, families in turn."""

MORE_SHAPES = (
    *("dep:1x112x112x96x3x2x1", "gmm:1x128x256x512", "t2d:1x8x8x64x128x4x2x1"),
    *("grp:1x28x28x256x256x3x1x1", "tbg:1x64x12x32", "c2d:1x28x28x256x64x1x1x0"),
    *("dep:1x14x14x96x3x1x1", "cbr:1x14x14x128x512x1x1x0", "t2d:1x16x16x128x32x4x2x1"),
    *("c1d:1x256x64x64x3x1x1", "tbg:1x512x2x64", "dep:1x28x28x192x5x1x2"),
    *("gmm:1x1024x256x64", "grp:1x14x14x128x128x3x2x1", "cap:1x12x12x32x32x3x2x1"),
    *("dep:1x7x7x960x3x1x1", "t2d:1x7x7x128x64x4x2x1", "cbr:1x56x56x48x48x3x2x1"),
    *("tbg:1x32x16x128", "gmm:8x64x64x64", "c2d:1x14x14x128x256x3x2x1"),
    *("dep:1x56x56x144x3x2x1", "grp:1x7x7x256x512x1x1x0", "t2d:1x32x32x16x16x4x2x1"),
    *("c1d:1x100x80x160x5x2x2", "dil:1x28x28x64x64x3x1x2", "gmm:1x32x2048x512"),
    *("tbg:1x196x3x64", "dep:1x20x20x240x5x2x2", "cbr:1x7x7x256x1024x1x1x0"),
    *("cap:1x16x16x32x16x3x2x1", "c2d:1x112x112x16x32x3x2x1"),
)
"""And more of the families that others tell least of."""

ROUNDS = (
    ("greedy-trees", tuple(f"ansor/{name}" for name in SUITE)),
    ("greedy-prior", SHAPES),
    ("greedy-prior", MORE_SHAPES),
)
"""An agent, and what it searches."""

GOOD = math.log(2)
FIRST = (8, 32)
DRAWS = 300

Example = tuple[str, Space, Floats, Floats]
"""A task's name, its space, features of its points, and their log seconds."""


def collect(turn: int, out: Path, seconds: float, points: Path) -> None:
    """Search every task of a round that was not searched yet, and keep what all have measured."""
    agent, names = ROUNDS[turn]
    tasks = [task for name in names for task in resolve_many(name)]
    out.mkdir(parents=True, exist_ok=True)
    arena = LiveArena([contestant(agent)], tasks, hw.detect(), out)
    for task in tasks:
        if not any(out.glob(_stores(task.name, agent))):
            attempt = arena.attempt(task.name, agent, 0, Budget(seconds=seconds))
            print(f"{task.name}: {attempt.trials} trials, {attempt.failure or 'done'}", flush=True)
    rows: list[tuple[str, str, float]] = []
    for by, searched_tasks in ROUNDS[: turn + 1]:
        for file in (file for task in searched_tasks for file in out.glob(_stores(task, by))):
            _, name, measured, logs = searched(file)
            seen = zip(measured, logs.tolist(), strict=True)
            rows += [(name, str(point), log_s) for point, log_s in seen if math.isfinite(log_s)]
    rows.sort(key=lambda row: row[0])
    columns = dict(zip(("task", "point", "log_s"), zip(*rows, strict=True), strict=True))
    table = pa.table({name: list(column) for name, column in columns.items()})
    pq.write_table(table.replace_schema_metadata({"machine": hw.detect().fingerprint}), points)


def _stores(task: str, agent: str) -> str:
    """Where records of searches of a task are, a pattern."""
    return f"attempts/{task.replace('/', '%2F')}/{agent}/*/records.sqlite"


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
    """`c2d` of `ansor/c2d-2` and of `c2d:1x28x28x128x128x3x1x1`."""
    return name.rpartition("/")[2][:3]


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
    parser.add_argument("--round", type=int, default=0, choices=range(len(ROUNDS)))
    parser.add_argument("--seconds", type=float, default=55.0, help="of each search")
    parser.add_argument("--points", type=Path, default=Path("runs/tile_prior.parquet"))
    parser.add_argument("--to", type=Path, default=Path("agents/tile_prior.ubj"))
    parser.add_argument("--table", type=Path, help="write the tables here as well")
    arguments = parser.parse_intermixed_args()
    if arguments.step == "collect":
        collect(arguments.round, arguments.out, arguments.seconds, arguments.points)
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
