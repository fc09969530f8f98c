"""The vector environment with predicted rewards, against the space and the model point by point."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from schedenv.envs import vector
from schedenv.envs.actions import STOP, EditActions
from schedenv.envs.layout import Layout
from schedenv.envs.observations import KnobObservation
from schedenv.envs.vector import EditVectorEnv
from schedenv.envs.vector_make import predicted_source
from schedenv.errors import IllegalPointError, ModelOutputError
from schedenv.hardware import Hardware
from schedenv.space import Point, SearchSpace, Space
from schedenv.tasks import Task, resolve

SPECS = ["gmm:1x12x20x6", "c2d:1x6x6x4x6x3x1x1", "tbg:1x8x2x6"]
ENVS = 6

layout = Layout()
actions_one_by_one = EditActions(layout)


class LinearModel:
    """Scores are a fixed linear function of a row; the rows that it was asked are kept."""

    def __init__(self) -> None:
        self.asked: list[int] = []

    def predict_rows(
        self, task: Task, space: SearchSpace, rows: npt.NDArray[np.int32]
    ) -> npt.NDArray[np.float32]:
        assert rows.dtype == np.int32
        assert rows.shape[1] == 1 + space.width
        self.asked.append(len(rows))
        weights = np.random.default_rng(len(task.name)).normal(size=rows.shape[1]) / 20
        return (np.log2(rows + 4) @ weights).astype(np.float32)


MakeEnvs = Callable[..., EditVectorEnv]


@pytest.fixture
def make(
    space_of: Callable[[str], Space], hardware: Hardware, monkeypatch: pytest.MonkeyPatch
) -> MakeEnvs:
    """Vector environments whose cost model is at hand instead of in a folder."""

    def made(model: Any, specs: list[str], num_envs: int = ENVS, **arguments: Any) -> EditVectorEnv:
        source = predicted_source(
            [resolve(spec) for spec in specs],
            [space_of(spec) for spec in specs],
            hardware,
            model,
            "linear",
            layout,
        )
        monkeypatch.setattr(vector, "make_vector_source", lambda *_: source)
        return EditVectorEnv(num_envs, reward="predicted", **arguments)

    return made


@pytest.mark.parametrize("specs", [[spec] for spec in SPECS] + [SPECS])
def test_steps_are_those_of_the_space_and_the_model(
    specs: list[str],
    make: MakeEnvs,
    space_of: Callable[[str], Space],
    hardware: Hardware,
) -> None:
    model = LinearModel()
    envs = make(model, specs, max_steps=8)
    observation, infos = envs.reset(seed=2)
    rng, observe = np.random.default_rng(2), KnobObservation(layout)
    assert set(infos["task"]) <= set(specs)
    best = [0.0] * ENVS
    for step in range(6):
        masks = envs.action_masks()
        names, points = infos["task"], [Point.parse(text) for text in infos["point"]]
        actions = np.array([rng.choice(np.flatnonzero(mask[1:])) + 1 for mask in masks])
        actions[0] = 318
        before = infos["speedup"]
        observation, reward, terminated, truncated, infos = envs.step(actions)
        assert not (terminated | truncated).any()
        for i, (name, point, action) in enumerate(zip(names, points, actions, strict=True)):
            space, task = space_of(name), resolve(name)
            np.testing.assert_array_equal(masks[i], actions_one_by_one.mask(space, point))
            move = actions_one_by_one.move(space, point, int(action))
            there = point if move is None else move.apply(point)
            assert infos["point"][i] == str(there)
            assert infos["illegal"][i] == (move is None)
            rows = space.encode([space.default(), there])
            origin, score = model.predict_rows(task, space, rows).astype(float)
            assert infos["speedup"][i] == pytest.approx(math.exp(score - origin), rel=1e-5)
            paid = math.log(infos["speedup"][i] / before[i]) if move else -0.1
            assert reward[i] == pytest.approx(paid)
            best[i] = max(best[i], before[i], infos["speedup"][i])
            expected = observe.build(
                task, space, hardware, there, 1 - (step + 1) / 8, (infos["speedup"][i], best[i])
            )
            for key, value in expected.items():
                np.testing.assert_allclose(observation[key][i], value, atol=1e-6, err_msg=key)
    for key in ("latency_us", "best_us", "gflops_per_s", "regret", "peak_fraction"):
        assert not infos[f"_{key}"].any(), "a cost model knows no times"


def test_the_model_is_asked_once_a_step_and_only_about_candidates(make: MakeEnvs) -> None:
    model = LinearModel()
    envs = make(model, SPECS[:1])
    envs.reset(seed=0)
    model.asked.clear()
    masks = envs.action_masks()
    actions = masks[:, 1:].argmax(axis=1) + 1
    actions[:2] = STOP
    envs.step(actions)
    assert model.asked == [ENVS - 2]


def test_a_named_start_is_taken_or_refused(make: MakeEnvs, space_of: Callable[..., Space]) -> None:
    envs = make(LinearModel(), SPECS[:1])
    plain = space_of(SPECS[0]).default()
    _, infos = envs.reset(options={"point": str(plain)})
    assert set(infos["point"]) == {str(plain)}
    np.testing.assert_allclose(infos["speedup"], 1.0)
    with pytest.raises(IllegalPointError, match=rf"^0:1 is not a point of {SPECS[0]}: expected "):
        envs.reset(options={"point": "0:1"})


def test_the_rendered_text_says_that_the_speed_is_predicted(make: MakeEnvs) -> None:
    envs = make(LinearModel(), SPECS[:1], 1, render_mode="ansi")
    envs.reset(seed=0)
    texts = envs.render()
    assert texts is not None
    assert " times the plainest point's speed, predicted\nsketch " in texts[0]


class BrokenModel(LinearModel):
    """Answers that cannot be scores, once it was asked for the plainest point."""

    def __init__(self, answer: float) -> None:
        super().__init__()
        self._answer = answer

    def predict_rows(
        self, task: Task, space: SearchSpace, rows: npt.NDArray[np.int32]
    ) -> npt.NDArray[np.float32]:
        self.asked.append(len(rows))
        answer = 0.0 if len(self.asked) == 1 else self._answer
        return np.full(len(rows), answer, np.float32)


def test_a_model_that_answers_nan_is_refused(make: MakeEnvs) -> None:
    envs = make(BrokenModel(math.nan), SPECS[:1])
    with pytest.raises(ModelOutputError) as refusal:
        envs.reset(seed=0)
    assert str(refusal.value) == (
        "the cost model linear gave 6 scores that are not finite, in an answer of shape (6,), for "
        f"6 points of {SPECS[0]}; expected one finite score each: its training diverged, or it saw "
        "data that is not finite; fit it again"
    )


def test_a_model_whose_scores_are_no_log_speedups_is_refused(make: MakeEnvs) -> None:
    envs = make(BrokenModel(1234.0), SPECS[:1])
    with pytest.raises(ModelOutputError) as refusal:
        envs.reset(seed=0)
    assert " a log speed-up of 1.23e+03 over the plainest point; " in str(refusal.value)
