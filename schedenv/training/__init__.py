"""Training of policies: what trainers share, their checkpoints, and episodes played with them."""

from schedenv.training.checkpoint import CheckpointInfo, TrainedPolicy, load_policy
from schedenv.training.policy import Policy, RandomPolicy
from schedenv.training.rollout import Rollout, roll_out
from schedenv.training.trainer import Trainer, find_trainer, trainer_names

__all__ = [
    "CheckpointInfo",
    "Policy",
    "RandomPolicy",
    "Rollout",
    "TrainedPolicy",
    "Trainer",
    "find_trainer",
    "load_policy",
    "roll_out",
    "trainer_names",
]
