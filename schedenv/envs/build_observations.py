"""What an agent of `Build-v0` sees: the knobs decided so far, and which one is next."""

from __future__ import annotations

import numpy as np
from gymnasium import spaces

from schedenv.envs.build_actions import Options, Partial
from schedenv.envs.layout import Layout
from schedenv.envs.observations import KnobObservation, Observation
from schedenv.hardware import Hardware
from schedenv.space import Point
from schedenv.tasks.description import DescribedTask


class BuildObservation:
    """Builds observations of partial schedules for one layout.

    The keys of `schedenv.envs.observations.KnobObservation`, where `knobs` is 0 for what is not
    decided, `sketch` is 0 before the sketch is, and the speed-ups in `progress` are -1 until the
    schedule is complete; and two more, float32 within [0, 1]:

    - `decided`, shape (slots,): 1 where the knob's value is decided.
    - `decision`, shape (1 + slots,): one-hot, what the next action decides: the sketch, or a slot
      of `knobs`; all 0 once the schedule is complete.

    Example:
        >>> import gymnasium, schedenv
        >>> env = gymnasium.make("schedenv/Build-v0", reward="recorded", table="gmm")
        >>> {key: env.observation_space[key].shape for key in ("decided", "decision")}
        {'decided': (57,), 'decision': (58,)}
        >>> seen, info = env.reset(seed=0)
        >>> int(seen["decision"].argmax()), float(seen["decided"].sum()), info["point"]
        (0, 0.0, None)
        >>> env.close()
    """

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._knobs = KnobObservation(layout)

    @property
    def space(self) -> spaces.Dict:
        """The Gymnasium space."""
        slots = self._layout.slots
        return spaces.Dict(
            {
                **self._knobs.space.spaces,
                "decided": spaces.Box(0.0, 1.0, (slots,), np.float32),
                "decision": spaces.Box(0.0, 1.0, (1 + slots,), np.float32),
            }
        )

    def build(
        self,
        task: DescribedTask,
        hardware: Hardware,
        options: Options,
        partial: Partial,
        steps_left: float,
        speedups: tuple[float, float],
    ) -> Observation:
        """The observation of a partial schedule; the arguments as for `KnobObservation.build`."""
        space = options.space
        sketch = partial.sketch
        point = space.default() if sketch is None else Point(sketch, partial.values)
        seen = self._knobs.build(task, space, hardware, point, steps_left, speedups)
        decided = np.zeros(self._layout.slots, np.float32)
        decision = np.zeros(1 + self._layout.slots, np.float32)
        if sketch is None:
            for key in ("knobs", "knob_mask", "sketch"):
                seen[key][:] = 0.0
            decision[0] = 1.0
        else:
            entries = dict(self._layout.positions(space.sketches[sketch]))
            order = options.order(sketch)
            decided[[entries[slot] for slot in order[: partial.decided]]] = 1.0
            seen["knobs"] *= decided
            if partial.decided < len(order):
                decision[1 + entries[order[partial.decided]]] = 1.0
        return {**seen, "decided": decided, "decision": decision}
