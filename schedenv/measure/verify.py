"""Is a candidate's output right? Inputs, expected outputs, and what deviation is tolerated."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]

_META = "meta.json"

INPUT_SETS = 2
"""Independent random inputs prepared for each task; candidates are verified on one or the other."""


def tolerance(dtype: str, reduction_length: int) -> float:
    """Tolerated deviation, relative to the largest expected magnitude.

    Rounding errors of a sum of n terms grow like sqrt(n) when the terms are in any order; the
    factor four leaves room for the worst order, the constant for transcendentals.
    """
    epsilon = float(np.finfo(np.dtype(dtype)).eps)
    return epsilon * (16 + 4 * math.sqrt(reduction_length))


def deviation(actual: Sequence[Array], expected: Sequence[Array], tolerated: float) -> float:
    """Largest deviation in units of the tolerated one; above 1 is a wrong result.

    Infinite if any output element is not finite where the reference is: an element that the
    candidate never wrote still holds the NaN that it was poisoned with.
    """
    worst = 0.0
    for got, want in zip(actual, expected, strict=True):
        largest = _magnitude(np.subtract(got, want, dtype=np.float64))
        if not math.isfinite(largest):
            return math.inf
        scale = max(_magnitude(want), float(np.finfo(np.float32).tiny))
        worst = max(worst, largest / (scale * tolerated))
    return worst


def _magnitude(array: Array) -> float:
    """The largest absolute value, NaN if there is one, without another array of that size."""
    return float(np.maximum(np.max(array), -np.min(array)))


def random_inputs(
    shapes: Sequence[tuple[int, ...]], dtypes: Sequence[str], seed: int
) -> list[Array]:
    """Inputs uniform in [-1, 1): signs cancel, so a missing or doubled term shows."""
    rng = np.random.default_rng(seed)
    return [
        rng.uniform(-1.0, 1.0, shape).astype(dtype)
        for shape, dtype in zip(shapes, dtypes, strict=True)
    ]


class VerificationData:
    """The prepared inputs and expected outputs of a task, on disk.

    Attributes:
        tolerated: Result of `tolerance` for the task.
        sets: For each input set, the inputs and the expected outputs (float64).
    """

    def __init__(self, directory: Path) -> None:
        meta = json.loads((directory / _META).read_text())
        self.tolerated = float(meta["tolerated"])
        self.sets = [
            (
                [np.load(directory / f"input-{n}-{i}.npy") for i in range(meta["inputs"])],
                [np.load(directory / f"expected-{n}-{i}.npy") for i in range(meta["outputs"])],
            )
            for n in range(meta["sets"])
        ]

    @staticmethod
    def is_complete(directory: Path) -> bool:
        """Whether `write` has finished there."""
        return (directory / _META).exists()

    @staticmethod
    def write(
        directory: Path, tolerated: float, sets: Sequence[tuple[Sequence[Array], Sequence[Array]]]
    ) -> None:
        """Write the files that the constructor reads; `meta.json` last, as a sign of completion."""
        for number, (inputs, expected) in enumerate(sets):
            for index, array in enumerate(inputs):
                np.save(directory / f"input-{number}-{index}.npy", array)
            for index, array in enumerate(expected):
                np.save(directory / f"expected-{number}-{index}.npy", array)
        meta = {
            "tolerated": tolerated,
            "sets": len(sets),
            "inputs": len(sets[0][0]),
            "outputs": len(sets[0][1]),
        }
        (directory / _META).write_text(json.dumps(meta))
