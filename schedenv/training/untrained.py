"""What a policy was before it learned anything: the line that training has to lift."""

from __future__ import annotations

from typing import Any

from schedenv.envs.vector import EditVectorEnv
from schedenv.training.checkpoint import TrainedPolicy
from schedenv.training.sources import Sources
from schedenv.training.trainer import find_trainer


def untrained(trained: TrainedPolicy) -> TrainedPolicy:
    """The policy that a checkpoint's training began with: the same trainer, settings and seed.

    Raises:
        InputError: The tables or the cost model that it was trained on are not there any more.
        MissingExtraError: A library of the trainer is not installed.
    """
    info = trained.info
    trainer = find_trainer(info.agent)
    sources: dict[str, Any] = Sources(info.sources, info.held_out_sources, info.model).arguments()
    envs = EditVectorEnv(
        int(info.settings["environments"]),
        **sources,
        max_steps=info.max_steps,
        scheme=info.scheme,
        layout=dict(info.spaces.layout),
        autoreset_mode="same_step",
    )
    weights = trainer(envs, info.seed, info.settings).weights()
    return TrainedPolicy(info, trainer.make_policy(weights))
