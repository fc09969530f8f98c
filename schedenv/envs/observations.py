"""What an agent sees of a point: a flat Dict of fixed-size float32 Boxes."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from gymnasium import spaces

from schedenv.envs.layout import Layout
from schedenv.hardware import Hardware
from schedenv.space import ChoiceKnob, Point, SearchSpace, TileKnob
from schedenv.tasks import OPERATORS
from schedenv.tasks.description import DescribedTask

OBSERVATION_VERSION = 1
"""Raised when an entry of an observation comes to mean something else: trained policies depend on
it."""

Observation = dict[str, npt.NDArray[np.float32]]

_LOG_SCALE = 1.0 / 20.0
_FAMILIES = (*sorted(OPERATORS), "program")


class KnobObservation:
    """Builds observations for one layout.

    Keys, all float32 and within [0, 1] (`progress` within [-1, 1]):

    - `knobs`, shape (slots,): tile factors as log2 / 20; choices and locations scaled to their
      range; 0 where the sketch has no such knob.
    - `knob_mask`, shape (slots,): 1 where the sketch has the knob.
    - `sketch`, shape (sketches,): one-hot.
    - `task`, shape (families + 3,): family one-hot; log2 of FLOPs / 40, of bytes / 40, of their
      ratio / 20.
    - `hardware`, shape (3,): cores / 128, vector bits / 1024, log2 of L2 bytes / 40.
    - `progress`, shape (3,): part of the episode left; log2 speed-up over the untuned program of
      the current point and of the episode's best, / 10, clipped.

    Example:
        >>> import gymnasium, schedenv
        >>> env = gymnasium.make("schedenv/Edit-v0", reward="recorded", table="gmm")
        >>> for key, box in env.observation_space.items():
        ...     print(key, box.shape, box.dtype, box.low.min(), box.high.max())
        hardware (3,) float32 0.0 1.0
        knob_mask (57,) float32 0.0 1.0
        knobs (57,) float32 0.0 1.0
        progress (3,) float32 -1.0 1.0
        sketch (12,) float32 0.0 1.0
        task (17,) float32 0.0 1.0
        >>> seen, _ = env.reset(seed=0)
        >>> float(seen["sketch"].sum()), float(seen["progress"][0])
        (1.0, 1.0)
        >>> env.close()
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout

    @property
    def space(self) -> spaces.Dict:
        """The Gymnasium space."""

        def box(size: int, low: float = 0.0) -> spaces.Box:
            return spaces.Box(low, 1.0, (size,), np.float32)

        return spaces.Dict(
            {
                "knobs": box(self._layout.slots),
                "knob_mask": box(self._layout.slots),
                "sketch": box(self._layout.sketches),
                "task": box(len(_FAMILIES) + 3),
                "hardware": box(3),
                "progress": box(3, -1.0),
            }
        )

    def build(
        self,
        task: DescribedTask,
        space: SearchSpace,
        hardware: Hardware,
        point: Point,
        steps_left: float,
        speedups: tuple[float, float],
    ) -> Observation:
        """The observation of a point.

        Args:
            task: The task.
            space: Its points.
            hardware: The machine.
            point: Where the agent stands.
            steps_left: Part of the episode that is left, 0 to 1.
            speedups: Of the current and of the best point over the untuned program; 0 for a point
                that failed.
        """
        knobs, mask = self._knobs(space, point)
        one_hot = np.zeros(self._layout.sketches, np.float32)
        one_hot[point.sketch] = 1.0
        gains = [math.log2(gain) / 10 if gain > 0 else -1.0 for gain in speedups]
        return {
            "knobs": knobs,
            "knob_mask": mask,
            "sketch": one_hot,
            "task": _task_features(task),
            "hardware": _clipped(
                [
                    hardware.cores / 128,
                    hardware.vector_bits / 1024,
                    math.log2(hardware.l2_bytes or 1) / 40,
                ]
            ),
            "progress": np.clip(np.array([steps_left, *gains], np.float32), -1.0, 1.0),
        }

    def _knobs(
        self, space: SearchSpace, point: Point
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        sketch = space.sketches[point.sketch]
        knobs = np.zeros(self._layout.slots, np.float32)
        mask = np.zeros(self._layout.slots, np.float32)
        entry_of = dict(self._layout.positions(sketch))
        for knob in sketch.knobs:
            for slot in range(knob.start, knob.start + knob.width):
                value = point.values[slot]
                if isinstance(knob, TileKnob):
                    scaled = math.log2(value) * _LOG_SCALE
                elif isinstance(knob, ChoiceKnob):
                    scaled = value / (len(knob.choices) - 1)
                else:
                    # -2 (inlined) and -1 (root) come before the loops.
                    scaled = (value + 2) / 40
                knobs[entry_of[slot]] = min(1.0, scaled)
                mask[entry_of[slot]] = 1.0
        return knobs, mask


def _task_features(task: DescribedTask) -> npt.NDArray[np.float32]:
    family = [float(task.family == name) for name in _FAMILIES]
    size = [
        math.log2(1 + task.flops) / 40,
        math.log2(1 + task.bytes) / 40,
        math.log2(1 + task.flops / task.bytes) / 20,
    ]
    return _clipped([*family, *size])


def _clipped(values: list[float]) -> npt.NDArray[np.float32]:
    return np.clip(np.array(values, np.float32), 0.0, 1.0)
