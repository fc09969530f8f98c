"""How well do models that know only the knobs foretell what a search measures next?

    python runs/knob_models.py STORE... --table runs/knob_models.md

Each STORE is the record store of one finished search (`records.sqlite` of a tuning run, of an
attempt of `schedenv compare`, of `runs/time_to_metaschedule.py`). After so many of its measurements
each model is fitted to them and asked for the next ones; Spearman's rank correlation with what was
then measured is given, of all and of those alone that took less than twice the best until then:
telling the good from the bad is easier than telling the good apart. Means over the searches. What
a search measures next depends on the model it had, and is harder for that model: the points that
it ranked alike.
"""

from __future__ import annotations

import argparse
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from schedenv_agents.coordinates import Coordinates
from schedenv_agents.forecast import Forecast
from schedenv_agents.gaussian_process import WORST
from schedenv_agents.knob_features import KnobFeatures
from schedenv_agents.knob_trees import KnobTrees
from scipy.stats import spearmanr
from threadpoolctl import ThreadpoolController

from schedenv import hardware as hw
from schedenv.records.store import RecordStore
from schedenv.space import Point, Space
from schedenv.tasks import resolve

Floats = npt.NDArray[np.float64]
Model = Callable[[Sequence[Point], Floats, Sequence[Point]], Floats]
"""Fitted to points and their log seconds, what it expects of others."""

MOMENTS = (16, 32, 64, 128, 256, 512)
NEXT = 100
WITHIN = math.log(2)
FEWEST = 10


def searched(file: Path) -> tuple[Space, str, list[Point], Floats]:
    """A search's space, its task's name, and in order its points and their log seconds."""
    hardware = hw.detect()
    with RecordStore(file, hardware.fingerprint) as store:
        records = store.records()
    results = [record.result for record in records]
    seconds = [r.estimate_s if r.estimate_s is not None else math.inf for r in results]
    name = records[0].task_name
    return Space(resolve(name).mod, hardware), name, [r.point for r in results], np.log(seconds)


def models(space: Space) -> dict[str, Model]:
    """By name."""
    coordinates, features = Coordinates(space), KnobFeatures(space)

    def process(known: Sequence[Point], logs: Floats, asked: Sequence[Point]) -> Floats:
        forecast = Forecast(coordinates, dict(zip(known, np.exp(logs).tolist(), strict=True)))
        return forecast.predict(asked)[0]

    def trees(of: Callable[[Sequence[Point]], Floats]) -> Model:
        return lambda known, logs, asked: KnobTrees(of(known), logs, 0).predict(of(asked))

    return {
        "Gaussian process on coordinates": process,
        "trees on coordinates": trees(coordinates.of),
        "trees on knob features": trees(features.of),
    }


def main() -> None:
    """Print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stores", nargs="+", type=Path, metavar="STORE")
    parser.add_argument("--table", type=Path, help="write the table here as well")
    arguments = parser.parse_args()
    found: dict[tuple[str, int], list[tuple[float, float]]] = {}
    spent_s: dict[str, list[float]] = {}
    tasks: list[str] = []
    with ThreadpoolController().limit(limits=1):
        for file in arguments.stores:
            space, name, points, logs = searched(file)
            tasks.append(f"{name} ({len(points)})")
            for n in (n for n in MOMENTS if n + FEWEST <= len(points)):
                best = logs[:n].min()
                known, actual = np.minimum(logs, best + WORST)[:n], logs[n : n + NEXT]
                actual = np.minimum(actual, best + WORST)
                for model_name, model in models(space).items():
                    start = time.perf_counter()
                    expected = model(points[:n], known, points[n : n + NEXT])
                    spent_s.setdefault(model_name, []).append(time.perf_counter() - start)
                    good = actual < best + WITHIN
                    both = (rank(expected, actual), rank(expected[good], actual[good]))
                    found.setdefault((model_name, n), []).append(both)
    lines = [f"Searches: {', '.join(tasks)}.", ""]
    lines.append("| model | " + " | ".join(f"after {n}" for n in MOMENTS) + " | ms, median |")
    lines.append("|---|" + "---:|" * (len(MOMENTS) + 1))
    for model_name, spent in spent_s.items():
        cells = [cell(found.get((model_name, n), [])) for n in MOMENTS]
        lines.append(f"| {model_name} | {' | '.join(cells)} | {np.median(spent) * 1e3:.0f} |")
    print("\n".join(lines))
    if arguments.table:
        title = "# What models of knobs foretell of a search's next measurements"
        preface = (
            "Made by `python runs/knob_models.py STORE...`, which says what the numbers mean: rank "
            f"correlation with the next {NEXT} measurements, of all / of the good ones."
        )
        arguments.table.write_text("\n".join([title, "", preface, "", *lines]) + "\n")


def rank(expected: Floats, actual: Floats) -> float:
    """Spearman's rank correlation; not a number of too few."""
    return float(spearmanr(expected, actual).statistic) if len(actual) >= FEWEST else math.nan


def cell(values: Sequence[tuple[float, float]]) -> str:
    """Both means over searches."""
    return " / ".join(f"{mean:.2f}" for mean in np.nanmean(values, axis=0)) if values else ""


if __name__ == "__main__":
    main()
