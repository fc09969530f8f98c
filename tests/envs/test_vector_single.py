"""The vector environment against Gymnasium's own vector of single environments."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from schedenv.hardware import Hardware
from schedenv.measure.table_file import write_table
from schedenv.space import Space
from schedenv.tasks import resolve

from ..recorded_table import make_table

SPECS = ("gmm:1x32x32x32", "tbg:1x8x2x6")
ENVS = 4


@pytest.fixture(scope="module")
def tables(
    tmp_path_factory: pytest.TempPathFactory,
    hardware: Hardware,
    space_of: Callable[[str], Space],
) -> list[str]:
    paths = []
    for spec in SPECS:
        path = tmp_path_factory.mktemp("table") / f"{spec.partition(':')[0]}.parquet"
        write_table(make_table(resolve(spec), space_of(spec), hardware, 40), path)
        paths.append(str(path))
    return paths


def both(**arguments: Any) -> tuple[Any, Any]:
    """The vector environment, and one made of single ones."""
    vector = gymnasium.make_vec("schedenv/Edit-v0", num_envs=ENVS, **arguments)
    mode = vector.metadata["autoreset_mode"]
    arguments.pop("autoreset_mode", None)
    singles = gymnasium.make_vec(
        "schedenv/Edit-v0",
        num_envs=ENVS,
        vectorization_mode="sync",
        vector_kwargs={"autoreset_mode": mode},
        **arguments,
    )
    return vector, singles


def assert_same_infos(infos: dict[str, Any], expected: dict[str, Any]) -> None:
    """Equal but for rounding; what single environments tell as None is told by the mask."""
    assert set(infos) == set(expected)
    for key, values in expected.items():
        if key.startswith("_"):
            continue
        if key == "final_info":
            assert_same_infos(infos[key], values)
            continue
        for i in np.flatnonzero(expected[f"_{key}"]):
            value = values[i]
            if key == "final_obs":
                for name, part in value.items():
                    np.testing.assert_array_equal(infos[key][i][name], part)
            else:
                assert infos[f"_{key}"][i] == (value is not None)
                number = isinstance(value, float | np.floating)
                near = pytest.approx(value, rel=1e-9, abs=1e-12) if number else value
                assert value is None or infos[key][i] == near, key


@pytest.mark.parametrize("mode", ["next_step", "same_step"])
@pytest.mark.parametrize("scheme", ["log_ratio", "shaped"])
def test_recorded_rewards_are_those_of_single_environments_of_the_same_seeds(
    mode: str, scheme: str, tables: list[str]
) -> None:
    vector, singles = both(
        reward="recorded", table=tables, max_steps=6, scheme=scheme, autoreset_mode=mode
    )
    assert vector.observation_space == singles.observation_space
    assert vector.action_space == singles.action_space
    got, expected = vector.reset(seed=11), singles.reset(seed=11)
    rng = np.random.default_rng(11)
    ended = 0
    for _ in range(30):
        for key, value in expected[0].items():
            np.testing.assert_array_equal(got[0][key], value, err_msg=key)
        assert_same_infos(got[-1], expected[-1])
        masks = vector.unwrapped.action_masks()
        np.testing.assert_array_equal(masks, np.stack(singles.call("action_masks")))
        masks[rng.random(masks.shape) < 0.02] = True
        actions = np.array([rng.choice(np.flatnonzero(mask)) for mask in masks])
        got, expected = vector.step(actions), singles.step(actions)
        for mine, theirs in zip(got[1:4], expected[1:4], strict=True):
            np.testing.assert_allclose(mine, theirs, atol=1e-12)
        ended += int((got[2] | got[3]).sum())
    assert ended > ENVS
    vector.close()
    singles.close()


@pytest.fixture(scope="module")
def token_model(tables: list[str], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a saved model on knob tokens."""
    from schedenv import costmodel
    from schedenv.measure.table_file import read_table

    folder = tmp_path_factory.mktemp("tokens")
    model = costmodel.TokenModel(epochs=2)
    model.fit(costmodel.TrainingData.from_tables([read_table(Path(path)) for path in tables]))
    model.save(folder)
    return str(folder)


def test_predicted_rewards_are_those_of_single_environments_from_the_same_points(
    token_model: str, space_of: Callable[[str], Space]
) -> None:
    vector, singles = both(reward="predicted", task=SPECS[0], model=token_model)
    start = str(space_of(SPECS[0]).sample(np.random.default_rng(0)))
    got = vector.reset(seed=1, options={"point": start})
    expected = singles.reset(seed=1, options={"point": start})
    rng = np.random.default_rng(1)
    for _ in range(10):
        for key, value in expected[0].items():
            np.testing.assert_allclose(got[0][key], value, atol=1e-5, err_msg=key)
        assert got[-1]["point"].tolist() == expected[-1]["point"].tolist()
        masks = vector.unwrapped.action_masks()
        np.testing.assert_array_equal(masks, np.stack(singles.call("action_masks")))
        actions = np.array([rng.choice(np.flatnonzero(mask[1:])) + 1 for mask in masks])
        got, expected = vector.step(actions), singles.step(actions)
        np.testing.assert_allclose(got[1], expected[1], atol=1e-4)
    vector.close()
    singles.close()


def test_predicted_episodes_are_the_same_in_every_bit_whoever_is_beside_them(
    token_model: str,
) -> None:
    def run(seeds: list[int], width: int, steps: int = 15) -> tuple[Any, ...]:
        envs = gymnasium.make_vec(
            "schedenv/Edit-v0",
            num_envs=width,
            reward="predicted",
            task=list(SPECS),
            model=token_model,
            max_steps=7,
            autoreset_mode="same_step",
        )
        observation, infos = envs.reset(seed=seeds)
        found = []
        rngs = [np.random.default_rng(seed) for seed in seeds]
        for _ in range(steps):
            masks = envs.unwrapped.action_masks()
            pairs = zip(rngs, masks, strict=True)
            actions = np.array([rng.choice(np.flatnonzero(mask)) for rng, mask in pairs])
            observation, reward, _, _, infos = envs.step(actions)
            found.append((reward[0], observation["knobs"][0], infos["point"][0]))
        rewards, knobs, points = zip(*found, strict=True)
        return rewards, np.stack(knobs), points

    together = run([5, 6, 7, 8, 9], 5)
    for other in (run([5, 6, 7, 8, 9], 5), run([5, 1], 2)):
        assert other[0] == together[0]
        np.testing.assert_array_equal(other[1], together[1])
        assert other[2] == together[2]
