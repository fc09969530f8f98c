"""Steps a second of `Edit-v0`: the naive loop, one environment, and 256 in the vector environment.

All take random legal actions; drawing them and asking for the masks is inside the clock.

(a) What a predicted step costs without any of this: replay the trace, run the postprocessors,
    extract TVM's features, ask trees. Points are drawn outside the clock, masks are not asked for.
(b) One `schedenv/Edit-v0` with recorded rewards.
(c) The vector environment with recorded rewards, and with those of a model on knob tokens; the
    latter on the whole space, and once more on a convolution, whose padding has a compute location:
    which of its values are legal hangs on the tiles.

The models are fitted on the table's points: what they say does not matter here. Rounds of all of
them are interleaved.

    python runs/steps_per_second.py TABLE.parquet --to runs/steps_per_second.md
"""

from __future__ import annotations

import argparse
import cProfile
import itertools
import os
import pstats
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import numpy.typing as npt

from schedenv import hardware as hw
from schedenv.costmodel import TokenModel, TrainingData, TreeModel
from schedenv.measure.table import Table
from schedenv.measure.table_file import read_table
from schedenv.space import Space
from schedenv.tasks import resolve

ENVS = 256
WITH_LOCATIONS = "c2d:1x28x28x16x32x3x2x1"
PROFILED_S = 3.0


def legal_actions(masks: npt.NDArray[np.bool_], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """One legal action a row, uniformly, without a loop."""
    legal = np.flatnonzero(masks)
    starts = np.arange(len(masks) + 1) * masks.shape[1]
    first = np.searchsorted(legal, starts)
    chosen = first[:-1] + (rng.random(len(masks)) * np.diff(first)).astype(np.intp)
    return legal[chosen] - starts[:-1]


def naive(model: TreeModel, table: Table) -> Callable[[], int]:
    """One predicted step of a loop over points."""
    task = resolve(table.info.task.spec)
    space = Space(task.mod, hw.detect())
    rng = np.random.default_rng(0)
    points = itertools.cycle([space.sample(rng) for _ in range(1000)])

    def step() -> int:
        model.predict(task, space, [next(points)])
        return 1

    return step


def single(table: str) -> Callable[[], int]:
    """One step of one environment."""
    env = gymnasium.make("schedenv/Edit-v0", reward="recorded", table=table)
    rng = np.random.default_rng(0)
    env.reset(seed=0)

    def step() -> int:
        masks = env.unwrapped.action_masks()  # type: ignore[attr-defined]
        action = legal_actions(masks[None], rng)[0]
        *_, terminated, truncated, _ = env.step(action)
        if terminated or truncated:
            env.reset()
        return 1

    return step


def vector(**arguments: Any) -> Callable[[], int]:
    """One step of all environments of a vector."""
    envs = gymnasium.make_vec("schedenv/Edit-v0", num_envs=ENVS, **arguments)
    rng = np.random.default_rng(0)
    envs.reset(seed=0)

    def step() -> int:
        envs.step(legal_actions(envs.unwrapped.action_masks(), rng))  # type: ignore[attr-defined]
        return ENVS

    return step


def rate(step: Callable[[], int], seconds: float) -> float:
    """Steps a second."""
    start, count = time.perf_counter(), 0
    while (elapsed_s := time.perf_counter() - start) < seconds:
        count += step()
    return count / elapsed_s


def profile(step: Callable[[], int], lines: int = 12) -> Iterator[str]:
    """Where the time goes: the functions' own shares, the largest first."""
    profiler = cProfile.Profile()
    profiler.enable()
    rate(step, PROFILED_S)
    profiler.disable()
    stats: Any = pstats.Stats(profiler)
    rows = sorted(stats.stats.items(), key=lambda item: -item[1][2])
    for (file, line, function), (_, calls, own_s, *_) in rows[:lines]:
        place = f"{Path(file).name}:{line} " if line else ""
        yield f"| {place}`{function}` | {calls} | {100 * own_s / stats.total_tt:.0f} % |"


def main() -> None:
    """Run the comparison and print, or write, a table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("table", type=Path, help="a recorded table")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0, help="of each in every round")
    parser.add_argument("--to", type=Path, help="write the results here as well")
    arguments = parser.parse_args()
    hardware = hw.detect()
    os.environ.update(hw.kernel_environment(hardware))
    table = read_table(arguments.table)
    data = TrainingData.from_tables([table])
    trees, tokens = TreeModel(rounds=100), TokenModel(epochs=5)
    trees.fit(data)
    tokens.fit(data)
    with tempfile.TemporaryDirectory() as folder:
        tokens.save(Path(folder) / "tokens")
        steps = {
            "(a) naive loop": naive(trees, table),
            "(b) one environment, recorded": single(str(arguments.table)),
            f"(c) {ENVS} environments, recorded": vector(
                reward="recorded", table=str(arguments.table)
            ),
            f"(c) {ENVS} environments, predicted": vector(
                reward="predicted", task=table.info.task.spec, model=str(Path(folder) / "tokens")
            ),
            f"(c) {ENVS} environments, predicted, {WITH_LOCATIONS}": vector(
                reward="predicted", task=WITH_LOCATIONS, model=str(Path(folder) / "tokens")
            ),
        }
    rates: dict[str, list[float]] = {name: [] for name in steps}
    for step in steps.values():
        rate(step, arguments.seconds)  # Caches fill, patterns of unit loops become known.
    for _ in range(arguments.rounds):
        for name, step in steps.items():
            rates[name].append(rate(step, arguments.seconds))
    naive_rates = rates["(a) naive loop"]
    lines = [
        f"{table.info.task.spec}, {len(table.rows)} points in the table, {arguments.rounds} "
        f"interleaved rounds of {arguments.seconds:g} s each, {hardware.cores} cores, "
        f"{hardware.fingerprint}. Median and range over the rounds.",
        "",
        "| | steps/s | times (a), each round |",
        "|---|---|---|",
    ]
    for name, found in rates.items():
        ratios = [one / other for one, other in zip(found, naive_rates, strict=True)]
        lines.append(
            f"| {name} | {np.median(found):,.0f} ({min(found):,.0f} to {max(found):,.0f}) "
            f"| {', '.join(f'{ratio:,.0f}' for ratio in ratios)} |"
        )
    for name in list(steps)[2:]:
        lines += ["", f"Own time by function, {name} (the profiler slows small calls down):", ""]
        lines += ["| function | calls | share |", "|---|---|---|", *profile(steps[name])]
    print("\n".join(lines))
    if arguments.to:
        arguments.to.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
