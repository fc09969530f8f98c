"""Checkpoints: weights as numpy arrays, and JSON with everything that using them needs.

A folder holds `checkpoint.json`, and the two files that it names: the policy's weights and the
optimizer's state (`.npz`, read without pickle). The description is replaced last, so a folder
whose writer was killed still holds the checkpoint before.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import msgspec
import numpy as np
from gymnasium.spaces import flatdim

from schedenv.envs.actions import EditActions
from schedenv.envs.layout import Layout
from schedenv.envs.observations import OBSERVATION_VERSION, KnobObservation, Observation
from schedenv.errors import (
    CheckpointError,
    CorruptCheckpointError,
    ForeignCheckpointError,
    InputError,
    OutputDirError,
)
from schedenv.space import SPACE_VERSION
from schedenv.space.batch import Bools, Indices
from schedenv.training.policy import Arrays, Policy
from schedenv.training.trainer import Setting, find_trainer

INFO_FILE = "checkpoint.json"
FORMAT_VERSION = 1
"""Raised when a reader of the version before would misunderstand a folder."""

_MOST_BYTES = 256 << 20


class LearnedTask(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A task that a policy was trained on, or that was held out.

    Attributes:
        title: What environments and metrics call it: its name, or the table's if two are of one
            task.
        spec: The TASK string.
        name: Name for people.
        family: The operator.
        content_hash: Hash of the program.
        fingerprint: Of the hardware that the rewards are of.
    """

    title: str
    spec: str
    name: str
    family: str
    content_hash: str
    fingerprint: str


class Spaces(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a policy sees and what its actions mean.

    Attributes:
        space_version: `schedenv.space.SPACE_VERSION`.
        observation_version: `schedenv.envs.observations.OBSERVATION_VERSION`.
        layout: Sizes of `schedenv.envs.layout.Layout`.
        observation: Entries of every key.
        actions: How many there are.
    """

    space_version: int
    observation_version: int
    layout: Mapping[str, int]
    observation: Mapping[str, int]
    actions: int

    @classmethod
    def of(cls, layout: Layout) -> Spaces:
        """Those of this schedenv."""
        return cls(
            space_version=SPACE_VERSION,
            observation_version=OBSERVATION_VERSION,
            layout=asdict(layout),
            observation={key: flatdim(box) for key, box in KnobObservation(layout).space.items()},
            actions=int(EditActions(layout).space.n),
        )


class WeightsFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file of arrays beside the description."""

    name: str
    sha256: str


class CheckpointInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything about a checkpoint but its arrays: the content of `checkpoint.json`.

    Attributes:
        format_version: `FORMAT_VERSION` of the writer.
        agent: Name of the trainer.
        settings: Its hyperparameters, sizes of the networks included.
        spaces: What the policy sees and does.
        reward: `recorded` or `predicted`.
        model: The cost model's folder, for predicted rewards; None for recorded ones.
        model_sha256: Digest of its weights.
        max_steps: Steps of an episode.
        scheme: What steps paid, see `schedenv.envs.schemes`.
        sources: Tables or TASK strings that it was trained on, as they were given.
        held_out_sources: The same of those held out.
        tasks: What it was trained on.
        held_out: What it was judged on, and never trained.
        seed: Of everything random.
        steps: Steps learned from.
        seconds: Seconds of training, evaluation included.
        metrics: The last evaluation, by scalar.
        versions: Of the libraries that wrote it.
        policy: File of the weights.
        state: File of what resuming needs.
    """

    format_version: int = FORMAT_VERSION
    agent: str
    settings: Mapping[str, Setting]
    spaces: Spaces
    reward: str
    model: str | None
    model_sha256: str | None
    max_steps: int
    scheme: str
    sources: tuple[str, ...]
    held_out_sources: tuple[str, ...]
    tasks: tuple[LearnedTask, ...]
    held_out: tuple[LearnedTask, ...]
    seed: int
    steps: int = 0
    seconds: float = 0.0
    metrics: Mapping[str, float] = {}
    versions: Mapping[str, str]
    policy: WeightsFile = WeightsFile("", "")
    state: WeightsFile = WeightsFile("", "")


@dataclass(frozen=True)
class TrainedPolicy:
    """A policy from a checkpoint.

    Attributes:
        info: How it was trained.
        policy: As its trainer makes it.
    """

    info: CheckpointInfo
    policy: Policy

    def act(
        self, observations: Observation, masks: Bools, rng: np.random.Generator | None = None
    ) -> Indices:
        """One legal action for each environment, or one for a single environment.

        Args:
            observations: Of a vector environment, or of a single one.
            masks: Its `action_masks()`, shape (n, actions) or (actions,).
            rng: Draws from the policy's distribution; None takes its most likely action.

        Returns:
            Integers, shape (n,), or () for a single environment.

        Raises:
            InputError: The environment has other spaces than the policy was trained with.
        """
        sizes = {key: value.shape[-1] for key, value in observations.items()}
        expected = dict(self.info.spaces.observation)
        if sizes != expected or masks.shape[-1] != self.info.spaces.actions:
            raise InputError(
                f"expected observations of {expected} and {self.info.spaces.actions} actions, got "
                f"{sizes} and {masks.shape[-1]}; make the environment with "
                f"layout={dict(self.info.spaces.layout)}"
            )
        if masks.ndim == 1:
            lines = {key: value[None] for key, value in observations.items()}
            return np.asarray(self.policy.act(lines, masks[None], rng)[0])
        return self.policy.act(observations, masks, rng)


def load_policy(folder: Path | str) -> TrainedPolicy:
    """The policy of a checkpoint.

    Args:
        folder: The `--out` folder of `schedenv train`.

    Raises:
        CheckpointError: There is no checkpoint.
        CorruptCheckpointError: Its files are missing, damaged or do not belong together.
        ForeignCheckpointError: It is something else, or of another version of schedenv's spaces.
        UnknownNameError: Its agent is not installed.

    Example:
        >>> policy = load_policy("out/train-ppo-0")
        >>> actions = policy.act(observations, envs.unwrapped.action_masks())
    """
    folder = Path(folder)
    info = read_info(folder)
    trainer = find_trainer(info.agent)
    weights = read_arrays(folder, info.policy)
    try:
        return TrainedPolicy(info, trainer.make_policy(weights))
    except (ValueError, KeyError) as error:
        raise CorruptCheckpointError(
            f"the weights of {folder} are not those of a policy of {info.agent} ({error}); train "
            "it again with schedenv train"
        ) from None


def save(folder: Path, info: CheckpointInfo, policy: Arrays, state: Arrays) -> CheckpointInfo:
    """Write a checkpoint, replacing the one that is there only once this one is whole.

    Returns:
        The description as it was written, files and digests included.

    Raises:
        OutputDirError: The folder cannot be written.
    """
    contents = {
        f"policy-{info.steps}.npz": _packed(policy),
        f"state-{info.steps}.npz": _packed(state),
    }
    named = [
        WeightsFile(name, hashlib.sha256(content).hexdigest()) for name, content in contents.items()
    ]
    info = msgspec.structs.replace(info, policy=named[0], state=named[1])
    text = msgspec.json.format(msgspec.json.encode(info), indent=2) + b"\n"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in {**contents, INFO_FILE: text}.items():
            partial = folder / f"{name}.partial"
            partial.write_bytes(content)
            os.replace(partial, folder / name)  # noqa: PTH105 - Path.replace says it less plainly
        for pattern in ("policy-*.npz*", "state-*.npz*"):
            for path in folder.glob(pattern):
                if path.name not in contents:
                    path.unlink()
    except OSError as error:
        raise OutputDirError(
            f"{folder} cannot be written ({error.strerror or error}); choose another --out"
        ) from None
    return info


def read_info(folder: Path) -> CheckpointInfo:
    """Read the description of a checkpoint that this schedenv can use.

    Raises:
        CheckpointError: There is none.
        CorruptCheckpointError: It is damaged.
        ForeignCheckpointError: It is something else, or of another version.
    """
    if folder.is_file():
        raise ForeignCheckpointError(
            f"{folder} is a file; expected a folder that schedenv train wrote. Files of "
            "Stable-Baselines3 contain pickles and are not read: load them with its own load()"
        )
    path = folder / INFO_FILE
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(
            f"{folder} holds no checkpoint ({INFO_FILE} is missing); expected the --out folder of "
            "schedenv train"
        ) from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read ({error.strerror or error})") from None
    try:
        _check_version(path, text)
        info = msgspec.json.decode(text, type=CheckpointInfo)
        layout = Layout.of(dict(info.spaces.layout))
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise CorruptCheckpointError(
            f"{path} is damaged ({error}); train again with schedenv train"
        ) from None
    except InputError as error:
        if isinstance(error, CheckpointError):
            raise
        raise ForeignCheckpointError(f"{path} is of another layout: {error}") from None
    _check_spaces(folder, info.spaces, Spaces.of(layout))
    return info


def read_arrays(folder: Path, file: WeightsFile) -> Arrays:
    """Read a file of arrays that a description names.

    Raises:
        CorruptCheckpointError: It is missing, damaged, or not the one described.
    """
    path = folder / Path(file.name).name
    again = "train again with schedenv train"
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise CorruptCheckpointError(f"{path} is larger than any policy ({_MOST_BYTES} bytes)")
        content = path.read_bytes()
    except OSError as error:
        raise CorruptCheckpointError(
            f"{path} cannot be read ({error.strerror or error}); {again}"
        ) from None
    if hashlib.sha256(content).hexdigest() != file.sha256:
        raise CorruptCheckpointError(f"{path} does not match its digest in {INFO_FILE}; {again}")
    try:
        with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except (ValueError, OSError, zipfile.BadZipFile) as error:
        raise CorruptCheckpointError(f"{path} holds no arrays ({error}); {again}") from None


class _Version(msgspec.Struct):
    """The one field that all versions of the description have."""

    format_version: int


def _check_version(path: Path, text: bytes) -> None:
    found = msgspec.json.decode(text, type=_Version).format_version
    if found > FORMAT_VERSION:
        raise ForeignCheckpointError(
            f"{path} has checkpoint format {found}, this schedenv reads up to {FORMAT_VERSION}; "
            "upgrade schedenv"
        )


def _check_spaces(folder: Path, theirs: Spaces, ours: Spaces) -> None:
    """Refuse what a policy would misread without noticing."""
    for name in Spaces.__struct_fields__:
        found, expected = getattr(theirs, name), getattr(ours, name)
        if found != expected:
            raise ForeignCheckpointError(
                f"the checkpoint {folder} has {name.replace('_', ' ')} {found}; this schedenv has "
                f"{expected}. Train it again with schedenv train, or use the schedenv that wrote it"
            )


def _packed(arrays: Arrays) -> bytes:
    file = io.BytesIO()
    np.savez(file, allow_pickle=False, **arrays)
    return file.getvalue()
