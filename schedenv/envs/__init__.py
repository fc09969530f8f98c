"""Gymnasium environments; importing `schedenv` registers them."""

from __future__ import annotations

import gymnasium

MAX_STEPS = 32
"""Steps after which a registered environment truncates an episode."""


def register() -> None:
    """Register every environment id."""
    gymnasium.register(
        id="schedenv/Edit-v0",
        entry_point="schedenv.envs.edit:EditEnv",
        vector_entry_point="schedenv.envs.vector:EditVectorEnv",
        max_episode_steps=MAX_STEPS,
        nondeterministic=True,
    )
