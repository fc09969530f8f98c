"""How well the cost models rank tasks that they never saw, and what that is worth on the machine.

    python runs/cost_models.py collect [--points 48] [--seconds 150]
    python runs/cost_models.py carry [--seconds 150]
    python runs/cost_models.py judge [--to runs/cost_models.md]

`collect` and `carry` measure, and nothing else may run on the machine meanwhile; both stop after
`--seconds` and go on where they stopped when run again. `judge` only computes.

Each family is held out in turn: a model is trained on all other families and judged on it.
`carry` then asks what the ranking is worth: of a pool of random points, the best of N that the
model ranks first against the best of N drawn at random, all measured, none of them seen before.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from schedenv import hardware as hw
from schedenv.calibration import peaks
from schedenv.costmodel import (
    Quality,
    TrainingData,
    judge,
    judge_scores,
    make_model,
    mean_quality,
)
from schedenv.errors import InputError
from schedenv.measure import Result
from schedenv.measure.local import LocalMeasurer
from schedenv.records import Archive, Record, RecordStore, Run, RunRecords, Selection
from schedenv.records.record import now
from schedenv.space import Point, SearchSpace, Space
from schedenv.tasks import Task, resolve
from schedenv.tuning.budget import Budget
from schedenv.tuning.collect import CollectRequest, collect
from schedenv.tuning.loop import Loop

# Two shapes each of families that differ in structure, all well under a millisecond.
TASKS = (
    "gmm:1x128x128x128",
    "c2d:1x14x14x32x64x3x1x1",
    "dep:1x28x28x64x3x1x1",
    "sfm:128x256",
    "c1d:1x128x32x64x3x1x1",
    "gmm:1x64x256x96",
    "c2d:1x28x28x16x32x3x2x1",
    "dep:1x14x14x96x3x1x1",
    "sfm:96x384",
    "c1d:1x64x64x48x1x1x0",
)
CARRIED = ("gmm:1x128x128x128", "c2d:1x14x14x32x64x3x1x1", "dep:1x28x28x64x3x1x1", "sfm:128x256")
KINDS = ("tokens", "trees")
SEEDS = 3
POOL = 400
SHORTLIST = 12
DRAWS = 2000


class Picked:
    """An agent that asks for a list of points, in order."""

    def __init__(self, points: Sequence[Point]) -> None:
        self._left = list(points)

    def ask(self, count: int) -> list[Point]:
        """The next points of the list."""
        asked, self._left = self._left[:count], self._left[count:]
        return asked

    def tell(self, results: Sequence[Result]) -> None:
        """Nothing is learned."""

    def state_dict(self) -> dict[str, int]:
        """How many points are left."""
        return {"left": len(self._left)}


def collect_some(points: int, seconds: float, out: Path) -> None:
    end_s = time.monotonic() + seconds
    for spec in TASKS:
        if time.monotonic() > end_s:
            print("time is over; run again to go on")
            return
        task = resolve(spec)
        known = [record for record in records_of(out) if record.task_hash == task.content_hash]
        if len(known) >= points:
            continue
        state = collect(CollectRequest((task,), points, 0, str(out), resume=bool(known)))
        print(f"{spec}: {dict(state.counts)} in {state.elapsed_s:.0f} s", flush=True)
    print("all collected")


def records_of(out: Path) -> list[Record]:
    path = out / "records.sqlite"
    if not path.exists():
        return []
    with Archive(path) as archive:
        return archive.read(Selection(fingerprint=hw.detect().fingerprint)).records


def training_data(out: Path) -> TrainingData:
    return TrainingData.from_records(records_of(out), hw.detect())


def held_out_quality(data: TrainingData) -> dict[str, dict[str, list[Quality]]]:
    """For each kind, by held-out task, one quality a seed; `random` has random scores."""
    found: dict[str, dict[str, list[Quality]]] = {kind: {} for kind in (*KINDS, "random")}
    for family in dict.fromkeys(entry.task.family for entry in data.tasks):
        learned, held = data.split([family])
        for kind in KINDS:
            for seed in range(SEEDS):
                model = make_model(kind, seed)
                model.fit(learned)
                for name, quality in judge(model, held).items():
                    found[kind].setdefault(name, []).append(quality)
        rng = np.random.default_rng(0)
        for entry in held:
            found["random"][entry.task.name] = [
                judge_scores(entry.estimates_s, rng.random(len(entry.points)).astype(np.float32))
                for _ in range(DRAWS)
            ]
    return found


def shortlists(data: TrainingData, task: Task, space: SearchSpace) -> dict[str, list[Point]]:
    """What each model ranks first of a pool, and what chance takes, none of it in the data."""
    seen = {p for e in data.tasks if e.task == task for p in e.points}
    rng = np.random.default_rng(1)
    draws = (space.sample(rng) for _ in range(4 * POOL))
    pool = [point for point in dict.fromkeys(draws) if point not in seen][:POOL]
    learned, _ = data.split([task.family])
    picked = {"random": pool[:SHORTLIST]}
    for kind in KINDS:
        model = make_model(kind)
        model.fit(learned)
        order = np.argsort(-model.predict(task, space, pool), kind="stable")
        picked[kind] = [pool[index] for index in order[:SHORTLIST]]
    return picked


def carry_some(seconds: float, out: Path) -> None:
    """Measure the shortlists of all kinds together, so that drift hits them alike."""
    end_s = time.monotonic() + seconds
    hardware = hw.detect()
    data = training_data(out)
    with RecordStore(out / "carried.sqlite", hardware.fingerprint) as store:
        for spec in CARRIED:
            if time.monotonic() > end_s:
                print("time is over; run again to go on")
                return
            task = resolve(spec)
            if store.records(task.content_hash):
                continue
            space = Space(task.mod, hardware)
            lists = shortlists(data, task, space)
            points = list(
                dict.fromkeys(p for row in zip(*lists.values(), strict=True) for p in row)
            )
            run = Run(
                f"carry-{task.content_hash}", task.content_hash, task.name, "picked", 0, None,
                {kind: [str(point) for point in picked] for kind, picked in lists.items()}, now(),
            )  # fmt: skip
            with LocalMeasurer(task, hardware) as measurer:
                Loop(
                    task, space, Picked(points), measurer, RunRecords(store, run),
                    Budget(trials=len(points)), hardware,
                ).run()  # fmt: skip
            print(f"{spec}: {len(points)} points measured", flush=True)
    print("all measured")


def carried_lines(data: TrainingData, out: Path) -> list[str]:
    """The best of each shortlist, against the best of the random one, as lines of Markdown."""
    path = out / "carried.sqlite"
    if not path.exists():
        return []
    hardware = hw.detect()
    with Archive(path) as archive:
        records = archive.read(Selection(fingerprint=hardware.fingerprint)).records
    lines = [
        f"| held-out task | best of {SHORTLIST} random, us | "
        + " | ".join(f"{kind}, us | speed-up" for kind in KINDS) + " |",
        "|---|---:|" + "---:|---:|" * len(KINDS),
    ]  # fmt: skip
    logs: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for spec in CARRIED:
        task = resolve(spec)
        times = {r.canonical: r.result.estimate_s for r in records if r.task_name == task.name}
        if not times:
            continue
        space = Space(task.mod, hardware)
        best = {
            kind: min(times.get(space.canonical(point)) or np.inf for point in picked)
            for kind, picked in shortlists(data, task, space).items()
        }
        cells = []
        for kind in KINDS:
            gain = best["random"] / best[kind]
            logs[kind].append(np.log(gain))
            cells.append(f"{best[kind] * 1e6:.1f} | {gain:.2f}")
        lines.append(f"| {spec} | {best['random'] * 1e6:.1f} | " + " | ".join(cells) + " |")
    means = " | ".join(f"| {np.exp(np.mean(logs[kind])):.2f}" for kind in KINDS)
    lines.append(f"| geometric mean | | {means} |")
    return lines


def quality_lines(found: Mapping[str, Mapping[str, Sequence[Quality]]]) -> list[str]:
    """Means over tasks and seeds as lines of Markdown."""
    lines = [
        "| scores | top-1 | top-5 | pairwise | Kendall tau |",
        "|---|---:|---:|---:|---:|",
    ]
    for kind, tasks in found.items():
        mean = mean_quality(
            {f"{name} {n}": q for name, list_ in tasks.items() for n, q in enumerate(list_)}
        )
        lines.append(
            f"| {kind} | {mean.top1:.3f} | {mean.top5:.3f} | {mean.pairwise:.3f} "
            f"| {mean.kendall_tau:.3f} |"
        )
    names = list(next(iter(found.values())))
    lines += [
        "", "Pairwise accuracy by held-out task:", "",
        "| held-out task | points | " + " | ".join(found) + " |",
        "|---|---:|" + "---:|" * len(found),
    ]  # fmt: skip
    for name in names:
        cells = [f"{np.mean([q.pairwise for q in found[kind][name]]):.3f}" for kind in found]
        lines.append(f"| {name} | {found[KINDS[0]][name][0].points} | " + " | ".join(cells) + " |")
    return lines


def report(out: Path) -> list[str]:
    data = training_data(out)
    failed = sum(int((~entry.ok).sum()) for entry in data.tasks)
    found = held_out_quality(data)
    return [
        "# Cost models on held-out families",
        "",
        f"Made by `python runs/cost_models.py` on {data.hardware.fingerprint}: {data.count} "
        f"measured points ({failed} failed) of {len(data.tasks)} tasks. Every family is held out "
        f"in turn, so a model is trained on about {data.count * 4 // 5} points of the other "
        f"families; means over tasks and {SEEDS} training seeds ({DRAWS} draws of random scores).",
        "",
        *quality_lines(found),
        "",
        f"What the ranking is worth: of {POOL} random points of a task whose family was held out, "
        f"the {SHORTLIST} ranked first and {SHORTLIST} at random were measured together.",
        "",
        *carried_lines(data, out),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=["collect", "carry", "judge"])
    parser.add_argument("--points", type=int, default=48, help="Measured for each task.")
    parser.add_argument("--seconds", type=float, default=150, help="Of this call.")
    parser.add_argument("--out", type=Path, default=Path("out/cost_models"))
    parser.add_argument("--to", type=Path, default=None, help="Markdown file to write.")
    arguments = parser.parse_args()
    peaks(hw.detect())
    if arguments.what == "collect":
        collect_some(arguments.points, arguments.seconds, arguments.out)
        return
    if not records_of(arguments.out):
        raise InputError("nothing is collected; run: python runs/cost_models.py collect")
    if arguments.what == "carry":
        carry_some(arguments.seconds, arguments.out)
        return
    lines = report(arguments.out)
    if arguments.to is not None:
        arguments.to.write_text("\n".join(lines) + "\n")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
