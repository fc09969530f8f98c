"""What every cost model promises, and how one is kept in a folder."""

from __future__ import annotations

import abc
import hashlib
import importlib
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt

from schedenv.costmodel.data import TrainingData
from schedenv.errors import CorruptModelError, InputError, ModelOutputError, OutputDirError
from schedenv.hardware import Hardware
from schedenv.space import SPACE_VERSION, Point, SearchSpace
from schedenv.tasks import Task

INFO_FILE = "model.json"
FORMAT_VERSION = 1
"""Raised when a reader of the version before would misunderstand a folder."""

REFUSED_SCORE = -20.0
"""Score of a point that TVM refuses: slower than anything that runs."""

Setting: TypeAlias = int | float | str


class TrainedOn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One task that a model learned from; the fields are those of `schedenv.tasks.Task`.

    Attributes:
        spec: The TASK string.
        name: Name for people.
        family: The operator.
        content_hash: Hash of the program.
        points: How many measured points there were, failures included.
    """

    spec: str
    name: str
    family: str
    content_hash: str
    points: int


class ModelInfo(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything about a saved model but its weights: the content of `model.json`.

    Attributes:
        format_version: `FORMAT_VERSION` of the writer.
        kind: `trees` or `tokens`.
        feature_version: Of the features that the model reads.
        space_version: `schedenv.space.SPACE_VERSION` of the points that it was trained on.
        hardware: The machine whose measurements it learned.
        versions: Of the libraries that wrote it.
        tasks: What it was trained on.
        records: Points of all tasks, failures included.
        seed: Of everything random in training.
        settings: Hyperparameters.
        metrics: Quality on held-out tasks, by name of the task; empty if it was not judged.
        weights_sha256: Digest of the file of weights.
    """

    format_version: int
    kind: str
    feature_version: int
    space_version: int
    hardware: Hardware
    versions: Mapping[str, str]
    tasks: tuple[TrainedOn, ...]
    records: int
    seed: int
    settings: Mapping[str, Setting]
    metrics: Mapping[str, Mapping[str, float]]
    weights_sha256: str


class CostModel(abc.ABC):
    """Scores points without measuring them.

    Args:
        seed: Of everything random in training; equal data and seeds give equal models.

    Attributes:
        kind: Name of the kind, as in `model.json`.
        feature_version: Of the features that it reads.
        weights_file: Name of the file of weights in a folder.
        library: The module that trains it.
        seed: As given.
        info: What it was trained on; None before `fit`. Its digest is empty until it is saved.
    """

    kind: ClassVar[str]
    feature_version: ClassVar[int]
    weights_file: ClassVar[str]
    library: ClassVar[str]

    def __init__(self, seed: int = 0) -> None:
        self.seed = seed
        self.info: ModelInfo | None = None

    def fit(self, data: TrainingData) -> None:
        """Learn from measured points, forgetting what was learned before.

        Raises:
            MissingExtraError: The library of the model is not installed.
        """
        self._fit(data)
        self.info = ModelInfo(
            format_version=FORMAT_VERSION,
            kind=self.kind,
            feature_version=self.feature_version,
            space_version=SPACE_VERSION,
            hardware=data.hardware,
            versions={
                **{name: version(name) for name in ("schedenv", "apache-tvm", "numpy")},
                # A module may come from one of several distributions (xgboost, xgboost-cpu).
                self.library: str(importlib.import_module(self.library).__version__),
            },
            tasks=tuple(
                TrainedOn(
                    entry.task.spec, entry.task.name, entry.task.family,
                    entry.task.content_hash, len(entry.points),
                )
                for entry in data.tasks
            ),
            records=data.count,
            seed=self.seed,
            settings=self._settings(),
            metrics={},
            weights_sha256="",
        )  # fmt: skip

    def predict(
        self, task: Task, space: SearchSpace, points: Sequence[Point]
    ) -> npt.NDArray[np.float32]:
        """Score points of a task, one that the model was trained on or not.

        Args:
            task: The task.
            space: Its points, or a part of them.
            points: Legal points.

        Returns:
            Shape (n,), float32. Higher is faster; the difference of two scores estimates the
            natural logarithm of the speed-up from one to the other. Scores of different tasks
            cannot be compared.

        Raises:
            InputError: The model was not fitted.
            ModelOutputError: It predicts something else than n finite numbers.
        """
        self.fitted()
        if not points:
            return np.zeros(0, np.float32)
        scores = self._predict(task, space, points)
        check_scores(scores, len(points), self.kind)
        return scores

    def note_quality(self, metrics: Mapping[str, Mapping[str, float]]) -> None:
        """Keep the quality on held-out tasks with the model.

        Raises:
            InputError: The model was not fitted.
        """
        self.info = msgspec.structs.replace(self.fitted(), metrics=metrics)

    def save(self, folder: Path) -> None:
        """Write weights and `model.json` into a folder, replacing a model that is there.

        Raises:
            InputError: The model was not fitted.
            OutputDirError: The folder cannot be written.
        """
        info = self.fitted()
        weights = self._weights()
        info = msgspec.structs.replace(info, weights_sha256=hashlib.sha256(weights).hexdigest())
        text = msgspec.json.format(msgspec.json.encode(info), indent=2)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            # The description goes last: a folder with one has the weights that it describes.
            (folder / INFO_FILE).unlink(missing_ok=True)
            (folder / self.weights_file).write_bytes(weights)
            (folder / INFO_FILE).write_bytes(text + b"\n")
        except OSError as error:
            raise OutputDirError(
                f"{folder} cannot be written ({error.strerror or error}); choose another --out"
            ) from None

    def restore(self, info: ModelInfo, weights: bytes) -> None:
        """Become the model that was saved.

        Raises:
            CorruptModelError: The weights are not what this kind writes.
            MissingExtraError: The library of the model is not installed.
        """
        self.seed, self.info = info.seed, info
        try:
            self._restore(weights)
        except (ValueError, KeyError, OSError) as error:
            reason = " ".join(str(error).split())[:200]
            raise CorruptModelError(
                f"the weights of this {self.kind} model cannot be read ({reason}); "
                "fit it again with schedenv fit"
            ) from error

    def fitted(self) -> ModelInfo:
        """What the model was trained on.

        Raises:
            InputError: It was not.
        """
        if self.info is None:
            raise InputError(
                f"this {self.kind} model was not fitted; call fit(data) first, or load one"
            )
        return self.info

    @abc.abstractmethod
    def _fit(self, data: TrainingData) -> None: ...

    @abc.abstractmethod
    def _predict(
        self, task: Task, space: SearchSpace, points: Sequence[Point]
    ) -> npt.NDArray[np.float32]: ...

    @abc.abstractmethod
    def _weights(self) -> bytes: ...

    @abc.abstractmethod
    def _restore(self, weights: bytes) -> None: ...

    @abc.abstractmethod
    def _settings(self) -> Mapping[str, Setting]: ...


def check_scores(scores: npt.NDArray[np.float32], count: int, name: str) -> None:
    """Refuse scores that are not one finite number a point.

    Raises:
        ModelOutputError: They are not.
    """
    if scores.shape != (count,):
        raise ModelOutputError(
            f"the cost model {name} gave scores of shape {scores.shape} for {count} points; "
            f"expected ({count},)"
        )
    bad = np.flatnonzero(~np.isfinite(scores))
    if len(bad):
        raise ModelOutputError(
            f"the cost model {name} predicts {scores[bad[0]]} for {len(bad)} of {count} points, "
            f"the first at position {bad[0]}; expected finite numbers. Its training diverged or "
            "its weights are damaged: fit it again with schedenv fit"
        )
