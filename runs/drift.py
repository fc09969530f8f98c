"""Should what a shared machine adds to a sample be divided out, and by what?

    python runs/drift.py STORE... --table runs/drift.md

Each STORE is the record store of a search (`records.sqlite`). Points that several of them measured
are looked for. What such a point took in calm moments of the other searches, the median look, is
taken for the truth; what it took in this one, in calm and in disturbed moments apart, is compared
with it: as the clock showed it, and divided by the slowdown of the reference kernel, or by its
root, or by what the engine of that time divided by, the slowdown of a good candidate of the same
task that was timed just before (only records of earlier versions have that). The table shows the
median of what is then left (1 if nothing is wrong on average), its spread, and its luckiest
fiftieth: of many candidates the luckiest would lead.
"""

from __future__ import annotations

import argparse
import statistics
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from schedenv import hardware as hw
from schedenv.measure import Result
from schedenv.measure.result import robust_estimate
from schedenv.records.store import RecordStore

CALM = 1.1
"""Calmer than the engine's limit, for what is taken for the truth."""

DISTURBED = (1.3, 2.5)
FEWEST = 30
LOOK = 10

Key = tuple[str, str]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Seen:
    """One look: the estimate of its samples, their divisor, the reference kernel's slowdown."""

    raw_s: float
    drift: float
    slowdown: float


def looks(result: Result) -> list[Seen]:
    """The looks of a result; none where they cannot be told apart."""
    if result.estimate_s is None or result.early_stopped or not result.slowdowns:
        return []
    each = len(result.samples_s) // len(result.slowdowns)
    if each < LOOK or each * len(result.slowdowns) != len(result.samples_s):
        return []
    drifts = result.drifts or (1.0,) * len(result.samples_s)
    return [
        Seen(robust_estimate(result.samples_s[start : start + each]), drifts[start], slowdown)
        for start, slowdown in zip(
            range(0, len(result.samples_s), each), result.slowdowns, strict=True
        )
    ]


def read(files: Sequence[Path]) -> dict[Key, list[list[Seen]]]:
    """For each task and point the looks of every search that measured it."""
    found: dict[Key, list[list[Seen]]] = defaultdict(list)
    fingerprint = hw.detect().fingerprint
    for file in files:
        with RecordStore(file, fingerprint) as store:
            for record in store.records():
                seen = looks(record.result)
                if seen:
                    found[record.task_name, str(record.result.point)].append(seen)
    return found


def compared(found: dict[Key, list[list[Seen]]], calm: bool) -> Iterator[tuple[str, Seen]]:
    """Medians of one search's looks, their time in parts of the truth that the others know."""
    for (task, _), searches in found.items():
        for place, mine in enumerate(searches):
            others = [
                one.raw_s
                for other, seen in enumerate(searches)
                for one in seen
                if other != place and one.slowdown < CALM
            ]
            chosen = [one for one in mine if _is_of(one, calm)]
            if others and chosen:
                yield (
                    task,
                    Seen(
                        statistics.median(one.raw_s for one in chosen) / statistics.median(others),
                        statistics.median(one.drift for one in chosen),
                        statistics.median(one.slowdown for one in chosen),
                    ),
                )


def _is_of(one: Seen, calm: bool) -> bool:
    return one.slowdown < CALM if calm else DISTURBED[0] < one.slowdown < DISTURBED[1]


def cells(seen: Sequence[Seen]) -> str:
    """What each way to correct leaves."""
    raw = np.log([one.raw_s for one in seen])
    drift = np.log([one.drift for one in seen])
    slowdown = np.log([one.slowdown for one in seen])
    left: list[Floats] = [raw, raw - drift, raw - slowdown / 2, raw - slowdown]
    return " | ".join(
        f"{np.exp(np.median(logs)):.2f}, {_spread(logs):.3f}, {np.exp(np.quantile(logs, 0.02)):.2f}"
        for logs in left
    )


def _spread(logs: Floats) -> float:
    """A standard deviation that a few outliers do not decide: of the quartiles' distance."""
    low, high = np.quantile(logs, [0.25, 0.75])
    return float(high - low) / 1.349


def main() -> None:
    """Print or write the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("stores", nargs="+", type=Path, metavar="STORE")
    parser.add_argument("--table", type=Path, help="write the table here as well")
    arguments = parser.parse_args()
    found = read(arguments.stores)
    lines = [
        "| moments | task | measured again | as the clock showed it | divided by another "
        "candidate's slowdown | by the root of the reference kernel's | by all of it |",
        "|---|---|---:|---:|---:|---:|---:|",
    ]
    for calm in (True, False):
        pairs = list(compared(found, calm))
        name = "calm" if calm else "disturbed"
        lines.append(f"| {name} | all | {len(pairs)} | {cells([one for _, one in pairs])} |")
        for task in sorted({task for task, _ in pairs}):
            mine = [one for other, one in pairs if other == task]
            if len(mine) >= FEWEST:
                lines.append(f"| {name} | {task} | {len(mine)} | {cells(mine)} |")
    print("\n".join(lines))
    if arguments.table:
        preface = (
            "Made by `python runs/drift.py`, which says what is compared: median, spread (a "
            "standard deviation, of logarithms) and luckiest fiftieth of measured over true.\n\n"
        )
        arguments.table.write_text(preface + "\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
