"""A small network on knob tokens: scores a hundred thousand points a second without TVM."""

from __future__ import annotations

import io
import math
import weakref
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from schedenv.costmodel.data import TaskData, TrainingData, split_points
from schedenv.costmodel.model import CostModel, Setting, check_scores
from schedenv.costmodel.ranking import ranking_loss
from schedenv.costmodel.tabulated import Head
from schedenv.costmodel.tokens import (
    CONTEXT_SIZE,
    FEATURE_VERSION,
    TOKEN_SIZE,
    Rows,
    Tokenizer,
    Tokens,
)
from schedenv.errors import MissingExtraError
from schedenv.space import Point, SearchSpace
from schedenv.tasks import Task

_ASIDE = 0.15
_LIST = 256
"""Points of a task in one step of training: their pairs fit the cache."""

_CHUNK = 2048
"""Rows scored at once: their activations fit the cache."""

_CHECK_EVERY = 5


class TokenModel(CostModel):
    """After TLP (Zhai et al., ASPLOS 2023): a network on what the schedule says, ranked by task.

    Every token passes the same two layers, the results are added up (TLP's sum over tokens; its
    attention is left out, for it costs more than all the rest), and two more layers see the sum
    and the context. The loss is LambdaRank's. At the end the scores are multiplied by the number
    that makes their differences fit the logarithms of measured speed-ups best, on points put
    aside, which are also what chooses the epoch.

    Args:
        seed: Of the weights, the order and the points put aside.
        width: Units of a layer.
        epochs: Passes over all tasks.
        learning_rate: Adam's, at the start; falls to zero along a cosine.
        weight_decay: AdamW's.
    """

    kind: ClassVar[str] = "tokens"
    feature_version: ClassVar[int] = FEATURE_VERSION
    weights_file: ClassVar[str] = "tokens.npz"
    library: ClassVar[str] = "torch"

    def __init__(
        self,
        seed: int = 0,
        *,
        width: int = 64,
        epochs: int = 120,
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-3,
    ) -> None:
        super().__init__(seed)
        self._width, self._epochs = width, epochs
        self._learning_rate, self._weight_decay = learning_rate, weight_decay
        self._weights_of: dict[str, Any] = {}
        self._scale = 1.0
        # By task within a space: equal points of two tasks differ in their context.
        self._tokenizers: weakref.WeakKeyDictionary[SearchSpace, dict[Task, Tokenizer]] = (
            weakref.WeakKeyDictionary()
        )

    def predict_rows(self, task: Task, space: SearchSpace, rows: Rows) -> npt.NDArray[np.float32]:
        """Score encoded points: no TVM call, no Python loop over points.

        Args:
            task: The task.
            space: Its points, or a part of them.
            rows: As `space.encode` gives them, shape (n, 1 + space.width), int32.

        Returns:
            As `predict`, shape (n,), float32.

        Raises:
            InputError: The model was not fitted, the rows are not of the space, or the space has
                more than the tokens hold.
            ModelOutputError: It predicts something else than finite numbers.
        """
        self.fitted()
        torch = _torch()
        tokenizer = self._tokenizer(task, space)
        scores = np.empty(len(rows), np.float32)
        with torch.inference_mode():
            for start in range(0, len(rows), _CHUNK):
                part = tokenizer.tokens(rows[start : start + _CHUNK])
                scores[start : start + _CHUNK] = self._scores(self._weights_of, part).numpy()
        scores *= np.float32(self._scale)
        check_scores(scores, len(rows), self.kind)
        return scores

    def knob_sums(self, task: Task, space: SearchSpace, rows: Rows) -> npt.NDArray[np.float64]:
        """What the layers after the sum over tokens begin with: a sum over knobs.

        Tokens and context are sums of what each knob gives, and the first layer of the head is
        linear, so a point's entry is a sum over its knobs of numbers that hang on nothing else.
        They can be tabulated, and then a score takes but the small layers of `head`.

        Args:
            task: The task.
            space: Its points, or a part of them.
            rows: As for `predict_rows`; locations need not be legal.

        Returns:
            Shape (n, hidden units), float64.

        Raises:
            InputError: As for `predict_rows`.
        """
        self.fitted()
        torch = _torch()
        doubles = {name: tensor.double() for name, tensor in self._weights_of.items()}
        tokenizer = self._tokenizer(task, space)
        sums = np.empty((len(rows), len(doubles["head1.bias"])))
        with torch.inference_mode():
            for start in range(0, len(rows), _CHUNK):
                part = tokenizer.tokens(rows[start : start + _CHUNK])
                sums[start : start + _CHUNK] = self._sums(doubles, part).numpy()
        return sums

    def head(self) -> Head:
        """The layers that follow `knob_sums`.

        Raises:
            InputError: The model was not fitted.
        """
        self.fitted()
        layers = {name: tensor.numpy() for name, tensor in self._weights_of.items()}
        scale = np.float32(self._scale)
        return Head(
            np.ascontiguousarray(layers["head2.weight"].T),
            layers["head2.bias"],
            layers["out.weight"][0] * scale,
            layers["out.bias"][0] * scale,
        )

    def _predict(
        self, task: Task, space: SearchSpace, points: Sequence[Point]
    ) -> npt.NDArray[np.float32]:
        return self.predict_rows(task, space, space.encode(points))

    def _fit(self, data: TrainingData) -> None:
        torch = _torch()
        threads = torch.get_num_threads()
        # The matrices are too small to share, and one thread adds up in one order everywhere.
        torch.set_num_threads(1)
        try:
            self._train(torch, data)
        finally:
            torch.set_num_threads(threads)

    def _train(self, torch: Any, data: TrainingData) -> None:
        rng = np.random.default_rng(self.seed)
        parts = [split_points(entry, _ASIDE, rng) for entry in data.tasks]
        learned = [self._encoded(part) for part, _ in parts]
        aside = [self._encoded(part) for _, part in parts]
        weights = self._initial(torch.Generator().manual_seed(self.seed))
        optimizer = torch.optim.AdamW(
            list(weights.values()), lr=self._learning_rate, weight_decay=self._weight_decay
        )
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self._epochs)
        best_loss, best = math.inf, weights
        for epoch in range(1, self._epochs + 1):
            for tokens, throughputs in _lists(learned, rng):
                optimizer.zero_grad()
                ranking_loss(self._scores(weights, tokens), throughputs).backward()
                torch.nn.utils.clip_grad_norm_(list(weights.values()), 0.5)
                optimizer.step()
            schedule.step()
            if epoch % _CHECK_EVERY == 0 or epoch == self._epochs:
                loss = self._loss(weights, aside)
                # A first NaN must not leave the untrained weights behind unnoticed.
                if not loss >= best_loss:
                    best_loss = loss
                    best = {name: tensor.detach().clone() for name, tensor in weights.items()}
        self._weights_of = {name: tensor.detach() for name, tensor in best.items()}
        self._scale = self._calibrate([part for _, part in parts], aside)

    def _encoded(self, entry: TaskData) -> tuple[Tokens, Any]:
        tokens = self._tokenizer(entry.task, entry.space).tokens(entry.space.encode(entry.points))
        return tokens, _torch().from_numpy(entry.throughputs)

    def _tokenizer(self, task: Task, space: SearchSpace) -> Tokenizer:
        known = self._tokenizers.setdefault(space, {})
        if task not in known:
            known[task] = Tokenizer(task, space)
        return known[task]

    def _initial(self, generator: Any) -> dict[str, Any]:
        """Weights of all layers: normal, scaled by He et al. (2015); biases zero."""
        torch = _torch()
        weights = {}
        for name, shape in _shapes(self._width).items():
            weights[name] = torch.zeros(shape)
            if name.endswith("weight"):
                weights[name] = torch.randn(shape, generator=generator) * math.sqrt(2 / shape[1])
            weights[name].requires_grad_()
        return weights

    def _scores(self, weights: Mapping[str, Any], tokens: Tokens) -> Any:
        """Scores before calibration, shape (n,)."""
        torch = _torch()
        hidden = torch.relu(self._sums(weights, tokens))
        hidden = torch.relu(_layer(weights, "head2", hidden))
        return _layer(weights, "out", hidden)[:, 0]

    def _sums(self, weights: Mapping[str, Any], tokens: Tokens) -> Any:
        """The head's first layer before its activation: linear in the tokens' sum and context."""
        torch = _torch()
        kind = weights["token1.weight"].dtype
        values, mask, context = (torch.from_numpy(array).to(kind) for array in tokens)
        hidden = torch.relu(_layer(weights, "token1", values))
        hidden = torch.relu(_layer(weights, "token2", hidden))
        # One product adds the tokens up and leaves the unused ones out.
        pooled = torch.bmm(mask[:, None, :], hidden)[:, 0] / 4
        return _layer(weights, "head1", torch.cat([pooled, context], dim=1))

    def _loss(self, weights: Mapping[str, Any], lists: Sequence[tuple[Tokens, Any]]) -> float:
        torch = _torch()
        with torch.inference_mode():
            losses = [
                float(ranking_loss(self._scores(weights, tokens), throughputs))
                for tokens, throughputs in lists
            ]
        return float(np.mean(losses))

    def _calibrate(self, tasks: Sequence[TaskData], lists: Sequence[tuple[Tokens, Any]]) -> float:
        """The factor of the least-squares fit of log speed-ups within tasks, on points put aside.

        Positive always, so that the order stays; 1 if the scores do not follow the speeds at all.
        """
        torch = _torch()
        product = square = 0.0
        for entry, (tokens, _) in zip(tasks, lists, strict=True):
            with torch.inference_mode():
                scores = self._scores(self._weights_of, tokens).numpy()[entry.ok]
            logs = -np.log(entry.estimates_s[entry.ok])
            centred = scores - scores.mean()
            product += float(centred @ (logs - logs.mean()))
            square += float(centred @ centred)
        scale = product / square if square > 0 else 1.0
        return scale if scale > 0 else 1.0

    def _weights(self) -> bytes:
        file = io.BytesIO()
        arrays = {name: tensor.numpy() for name, tensor in self._weights_of.items()}
        np.savez(file, allow_pickle=False, scale=np.float64(self._scale), **arrays)
        return file.getvalue()

    def _restore(self, weights: bytes) -> None:
        torch = _torch()
        try:
            with np.load(io.BytesIO(weights), allow_pickle=False) as arrays:
                found = {name: arrays[name] for name in arrays.files}
        except zipfile.BadZipFile as error:
            raise ValueError(str(error)) from None
        self._scale = float(found.pop("scale"))
        self._width = len(found["token1.bias"])
        if {name: array.shape for name, array in found.items()} != _shapes(self._width):
            raise ValueError("its arrays do not have the shapes of a network on tokens")
        self._weights_of = {name: torch.from_numpy(array) for name, array in found.items()}

    def _settings(self) -> Mapping[str, Setting]:
        return {
            "width": self._width,
            "epochs": self._epochs,
            "learning_rate": self._learning_rate,
            "weight_decay": self._weight_decay,
        }


def _layer(weights: Mapping[str, Any], name: str, values: Any) -> Any:
    return _torch().nn.functional.linear(values, weights[f"{name}.weight"], weights[f"{name}.bias"])


def _shapes(width: int) -> dict[str, tuple[int, ...]]:
    """The arrays of a network, each layer's weight and bias."""
    layers = {
        "token1": (width, TOKEN_SIZE),
        "token2": (width, width),
        "head1": (2 * width, width + CONTEXT_SIZE),
        "head2": (width, 2 * width),
        "out": (1, width),
    }
    shapes: dict[str, tuple[int, ...]] = {}
    for name, shape in layers.items():
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = shape, shape[:1]
    return shapes


def _lists(
    encoded: Sequence[tuple[Tokens, Any]], rng: np.random.Generator
) -> Iterator[tuple[Tokens, Any]]:
    """Every task once, in random order; of large ones a random part."""
    for index in rng.permutation(len(encoded)):
        tokens, throughputs = encoded[index]
        if len(throughputs) <= _LIST:
            yield tokens, throughputs
        else:
            chosen = rng.choice(len(throughputs), _LIST, replace=False)
            yield Tokens(*(array[chosen] for array in tokens)), throughputs[chosen]


def _torch() -> Any:
    try:
        import torch
    except ImportError:
        raise MissingExtraError("torch", "models", "the cost model on tokens") from None
    return torch
