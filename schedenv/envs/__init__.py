"""Gymnasium environments; importing `schedenv` registers them."""

from __future__ import annotations

import gymnasium


def register() -> None:
    """Register every environment id."""
    gymnasium.register(
        id="schedenv/Edit-v0",
        entry_point="schedenv.envs.edit:EditEnv",
        max_episode_steps=32,
        nondeterministic=True,
    )
