"""Gymnasium environments; importing `schedenv` registers them."""

from __future__ import annotations

import gymnasium

MAX_STEPS = 32
"""Steps after which `Edit-v0` truncates an episode, unless it is given `max_steps`."""

MAX_BUILD_STEPS = 96
"""The same of `Build-v0`; a schedule has at most half as many decisions."""


def register() -> None:
    """Register every environment id.

    They are registered as nondeterministic, for rewards are measured by default. The environment
    corrects the flag in the spec that it is made with: `gymnasium.make(..., reward="recorded")` is
    exactly deterministic, and its `spec.nondeterministic` is False.

    No time limit is registered: the environments truncate after their own `max_steps`, so that
    what the observation says is left of an episode is true.
    """
    gymnasium.register(
        id="schedenv/Edit-v0",
        entry_point="schedenv.envs.edit:EditEnv",
        vector_entry_point="schedenv.envs.vector:EditVectorEnv",
        nondeterministic=True,
    )
    gymnasium.register(
        id="schedenv/Build-v0",
        entry_point="schedenv.envs.build:BuildEnv",
        nondeterministic=True,
    )
