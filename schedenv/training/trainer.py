"""What a trainer is: something that improves a policy on a vector environment, bit by bit."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, ClassVar

from schedenv.envs.vector import EditVectorEnv
from schedenv.errors import InputError, UnknownNameError
from schedenv.space import SearchSpace
from schedenv.training.policy import Arrays, Policy
from schedenv.tuning.agent import Agent, TuningContext

if TYPE_CHECKING:
    from schedenv.training.checkpoint import TrainedPolicy
    from schedenv.training.sources import Sources

ENTRY_POINT_GROUP = "schedenv.trainers"

Setting = int | float | str


class Trainer(abc.ABC):
    """Improves one policy on a vector environment.

    `schedenv train` does the rest for every trainer: budget, checkpoints, evaluation on held-out
    tasks, TensorBoard, interruptions. A trainer is found by entry point (group
    `schedenv.trainers`), so that a package of yours can add one.

    Args:
        envs: Where to learn, in same-step mode; `envs.num_envs` is the setting `environments`.
        seed: Of everything random.
        settings: Hyperparameters, one for each of `defaults`.

    Attributes:
        defaults: The hyperparameters and their defaults, of which `environments` is one.
        libraries: Distributions whose versions a checkpoint is to name.
    """

    defaults: ClassVar[Mapping[str, Setting]]
    libraries: ClassVar[Sequence[str]] = ()

    @abc.abstractmethod
    def __init__(self, envs: EditVectorEnv, seed: int, settings: Mapping[str, Setting]) -> None: ...

    @property
    @abc.abstractmethod
    def steps(self) -> int:
        """Steps learned from so far, those of all environments and of earlier runs."""

    @abc.abstractmethod
    def learn(self) -> Mapping[str, float]:
        """Take some steps and learn from them: a second or two, not more.

        Returns:
            Scalars worth logging, such as losses, by name.

        Raises:
            TrainingDivergedError: It cannot go on; weights that are not finite are noticed by the
                caller.
        """

    @abc.abstractmethod
    def weights(self) -> Arrays:
        """All that `make_policy` needs, and the rest of the networks."""

    @abc.abstractmethod
    def state(self) -> Arrays:
        """What else is needed to go on with training, such as an optimizer's moments."""

    @abc.abstractmethod
    def restore(self, weights: Arrays, state: Arrays, steps: int) -> None:
        """Go on from a checkpoint.

        Raises:
            ValueError: The arrays are not those of a trainer with these settings.
        """

    @classmethod
    @abc.abstractmethod
    def make_policy(cls, weights: Arrays) -> Policy:
        """The policy of some weights.

        Raises:
            ValueError: They are not what `weights` gives.
        """

    @classmethod
    def make_evaluator(
        cls, sources: Sources, max_steps: int
    ) -> Callable[[Policy], dict[str, float]]:
        """What judges a policy while it is trained; plays greedy episodes unless overridden.

        Args:
            sources: What is learned, and what is held out.
            max_steps: Steps of an episode.

        Returns:
            A function from a policy to the scalars of `schedenv.training.evaluation.scalars`.
        """
        from schedenv.training.evaluation import Evaluator

        return Evaluator(sources, max_steps)

    @classmethod
    def make_agent(
        cls, trained: TrainedPolicy, space: SearchSpace, seed: int, context: TuningContext
    ) -> Agent:
        """The agent of a checkpoint, for tuning; walks with the policy unless overridden.

        Args:
            trained: The checkpoint's policy, and how it was trained.
            space: The points that the agent may ask for.
            seed: Of everything random.
            context: What is tuned, and on what.

        Raises:
            InputError: The checkpoint cannot be used for this task.
        """
        from schedenv.training.agent import PolicyAgent

        return PolicyAgent(trained, space, seed, context)


def diverged(steps: int) -> str:
    """The message of a `TrainingDivergedError`."""
    return (
        f"training diverged at {steps} steps: the weights are no longer finite. The last "
        "checkpoint is from before; train anew with a smaller learning rate "
        "(--set learning_rate=...)"
    )


def trainer_names() -> list[str]:
    """Names of all installed trainers."""
    return sorted(point.name for point in entry_points(group=ENTRY_POINT_GROUP))


def find_trainer(name: str) -> type[Trainer]:
    """An installed trainer by name.

    Raises:
        UnknownNameError: No trainer has that name.
    """
    for point in entry_points(group=ENTRY_POINT_GROUP):
        if point.name == name:
            found: type[Trainer] = point.load()
            return found
    raise UnknownNameError(
        "agent that can be trained",
        name,
        trainer_names(),
        "(agents without weights, such as greedy, need no training: schedenv tune)",
    )


def read_settings(defaults: Mapping[str, Setting], given: Sequence[str]) -> dict[str, Setting]:
    """The settings of a trainer, some of them given as texts `NAME=VALUE`.

    Raises:
        UnknownNameError: There is no such setting.
        InputError: A value is not of the setting's type, or not positive where it is a number.
    """
    settings = dict(defaults)
    for text in given:
        name, _, value = text.partition("=")
        if name not in defaults:
            raise UnknownNameError("setting", name, defaults, "(expected NAME=VALUE)")
        kind = type(defaults[name])
        try:
            settings[name] = kind(value)
        except ValueError:
            raise InputError(
                f"expected {name} as {'an integer' if kind is int else 'a number'}, got {value!r}"
            ) from None
    for name, setting in settings.items():
        # `not >` also refuses NaN.
        if not isinstance(setting, str) and not setting >= 0:
            raise InputError(f"expected {name} of at least 0, got {setting}")
        if isinstance(defaults[name], int) and setting == 0:
            raise InputError(f"expected {name} of at least 1, got 0")
    return settings
