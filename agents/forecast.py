"""What measured points say about others: the model that agents have of the task they search."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from schedenv.space import Point

from .coordinates import Coordinates
from .gaussian_process import Floats, GaussianProcess

_FEWEST_TIMED = 2

Expect = Callable[[Sequence[Point]], Floats]
"""Log seconds that points are expected to take before anything is measured, up to a constant."""


class Forecast:
    """Log seconds of a space's points, with how sure that is.

    Args:
        coordinates: Of the space.
        seconds: Times of measured points; infinite for failures, which count as the slowest.
        expect: What is corrected by them; None for nothing.
    """

    def __init__(
        self,
        coordinates: Coordinates,
        seconds: Mapping[Point, float],
        expect: Expect | None = None,
    ) -> None:
        self._coordinates, self._expect = coordinates, expect
        known = list(seconds)
        self._process = GaussianProcess(
            coordinates.of(known),
            np.array(list(seconds.values())),
            expected=None if expect is None else expect(known),
        )

    @classmethod
    def of(
        cls,
        coordinates: Coordinates,
        seconds: Mapping[Point, float],
        expect: Expect | None = None,
    ) -> Forecast | None:
        """A forecast, or None if nothing is expected and too little could be timed for one."""
        timed = sum(np.isfinite(second) for second in seconds.values())
        if timed >= _FEWEST_TIMED:
            return cls(coordinates, seconds, expect)
        return None if expect is None else cls(coordinates, {}, expect)

    def predict(self, points: Sequence[Point]) -> tuple[Floats, Floats]:
        """Mean and standard deviation of the log seconds, each of shape (n,)."""
        mean, deviation = self._process.predict(self._coordinates.of(points))
        return mean if self._expect is None else mean + self._expect(points), deviation

    def optimistic(self, points: Sequence[Point], optimism: float) -> Floats:
        """Log seconds, as short as they may well be: `optimism` deviations below the mean."""
        mean, deviation = self.predict(points)
        return mean - optimism * deviation

    def choose(
        self,
        points: Sequence[Point],
        count: int,
        optimism: float,
        price: Floats | None = None,
    ) -> list[Point]:
        """The most promising points that do not repeat each other; see `GaussianProcess.choose`."""
        if self._expect is not None:
            price = self._expect(points) + (0.0 if price is None else price)
        chosen = self._process.choose(self._coordinates.of(points), count, optimism, price)
        return [points[index] for index in chosen]
