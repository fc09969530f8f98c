"""What the tests of the fleet measure, and what they break."""

import json
from pathlib import Path

import numpy as np

from schedenv.space import Point, Space


class Points:
    """Points whose programs no other test has seen: a measurer never measures one twice."""

    def __init__(self, space: Space) -> None:
        self._space, self._rng = space, np.random.default_rng(3)
        self._seen: set[str] = set()

    def take(self, count: int) -> list[Point]:
        points: list[Point] = []
        while len(points) < count:
            point = self._space.sample(self._rng)
            form = self._space.canonical(point)
            if form not in self._seen:
                self._seen.add(form)
                points.append(point)
        return points


class Faults:
    """What the workers compile instead of certain points."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def set(self, faults: dict[Point, str]) -> None:
        self.file.write_text(json.dumps({str(point): fault for point, fault in faults.items()}))
