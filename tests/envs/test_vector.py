"""The vector environment against one environment at a time, and against Gymnasium's conventions."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode

from schedenv.envs.actions import STOP
from schedenv.envs.vector import EditVectorEnv
from schedenv.errors import IllegalPointError, InputError, MachineError, UnknownNameError
from schedenv.hardware import Hardware
from schedenv.measure.table import Table
from schedenv.measure.table_file import read_table, write_table
from schedenv.space import Space
from schedenv.tasks import resolve

from ..recorded_table import make_table
from .one_step_reference import OneStepReference

SPECS = ("gmm:1x32x32x32", "c2d:1x6x6x4x6x3x1x1", "tbg:1x8x2x6")
ENVS = 8

SpaceOf = Callable[[str], Space]


@pytest.fixture(scope="session")
def table_paths(
    tmp_path_factory: pytest.TempPathFactory, hardware: Hardware, space_of: SpaceOf
) -> dict[str, str]:
    """Recorded tables of three families; every seventh point fails."""
    folder = tmp_path_factory.mktemp("tables")
    paths = {}
    for spec in SPECS:
        path = folder / f"{spec.partition(':')[0]}.parquet"
        write_table(make_table(resolve(spec), space_of(spec), hardware, 48), path)
        paths[spec] = str(path)
    return paths


@pytest.fixture
def gmm(table_paths: dict[str, str]) -> str:
    return table_paths[SPECS[0]]


def make(table: Any, num_envs: int = ENVS, **arguments: Any) -> EditVectorEnv:
    envs = gymnasium.make_vec(
        "schedenv/Edit-v0",
        num_envs=num_envs,
        vectorization_mode="vector_entry_point",
        reward="recorded",
        table=table,
        **arguments,
    )
    assert isinstance(envs, EditVectorEnv)
    return envs


def random_actions(masks: np.ndarray[Any, Any], rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """Mostly legal ones, some of them STOP, some illegal."""
    legal = np.array([rng.choice(np.flatnonzero(mask)) for mask in masks])
    any_at_all = rng.integers(masks.shape[1], size=len(masks))
    return np.where(rng.random(len(masks)) < 0.1, any_at_all, legal)


def assert_same(i: int, step: tuple[Any, ...], expected: tuple[Any, ...]) -> None:
    """Entry i of a vector step is what one environment returned."""
    observation, info = expected[0], expected[-1]
    assert list(step[0]) == list(observation)
    for key, value in observation.items():
        assert step[0][key].dtype == value.dtype
        np.testing.assert_array_equal(step[0][key][i], value, err_msg=key)
    assert set(step[-1]) >= {*info, *(f"_{key}" for key in info)}
    for key, value in info.items():
        assert step[-1][f"_{key}"][i] == (value is not None)
        if value is not None:
            near = pytest.approx(value, rel=1e-12, abs=1e-15) if isinstance(value, float) else value
            assert step[-1][key][i] == near, key
    for got, wanted in zip(step[1:-1], expected[1:-1], strict=True):
        assert got[i] == pytest.approx(wanted, abs=1e-12)


# -- one environment at a time ----------------------------------------------------------------


@pytest.mark.parametrize("spec", SPECS)
def test_every_environment_goes_as_one_alone_does(spec: str, table_paths: dict[str, str]) -> None:
    envs = make(table_paths[spec], max_steps=12)
    alone = [OneStepReference(read_table(Path(table_paths[spec])), 12) for _ in range(ENVS)]
    start = envs.reset(seed=3)
    for i, env in enumerate(alone):
        assert_same(i, start, env.reset(3 + i))
    rng = np.random.default_rng(3)
    over = np.zeros(ENVS, bool)
    seen: set[str] = set()
    for _ in range(40):
        masks = envs.action_masks()
        for mask, env in zip(masks, alone, strict=True):
            np.testing.assert_array_equal(mask, env.mask())
        actions = random_actions(masks, rng)
        step = envs.step(actions)
        for i, env in enumerate(alone):
            if over[i]:
                observation, info = env.reset()
                expected: tuple[Any, ...] = (observation, 0.0, False, False, info)
            else:
                expected = env.step(int(actions[i]))
            assert_same(i, step, expected)
            over[i] = expected[2] or expected[3]
            seen |= {expected[-1]["status"], f"illegal {expected[-1]['illegal']}"}
            seen |= {f"terminated {expected[2]}", f"truncated {expected[3]}"}
    wanted = {"ok", "wrong_result", "illegal True", "terminated True", "truncated True"}
    assert seen >= wanted, "the episodes did not show everything that can happen"


def test_environments_of_several_tables_go_as_each_alone_does(table_paths: dict[str, str]) -> None:
    envs = make(list(table_paths.values()), 6)
    tables = {path: read_table(Path(path)) for path in table_paths.values()}
    alone = []
    seeds = list(range(50, 56))
    for seed in seeds:
        rng, _ = seeding.np_random(seed)
        alone.append(OneStepReference(list(tables.values())[int(rng.integers(len(SPECS)))]))
        alone[-1].rng = rng
    start = envs.reset(seed=seeds)
    assert len(set(start[1]["task"])) == len(SPECS)
    for i, env in enumerate(alone):
        assert_same(i, start, env.reset())
    rng = np.random.default_rng(4)
    for _ in range(15):
        masks = envs.action_masks()
        masks[:, STOP] = False
        actions = np.array([rng.choice(np.flatnonzero(mask)) for mask in masks])
        step = envs.step(actions)
        for i, env in enumerate(alone):
            assert_same(i, step, env.step(int(actions[i])))


def test_the_same_seeds_and_actions_give_the_same_everything(gmm: str) -> None:
    runs = []
    for _ in range(2):
        envs = make(gmm)
        rng = np.random.default_rng(1)
        observation, infos = envs.reset(seed=9)
        seen = [observation["progress"].tobytes(), infos["point"].tolist()]
        for _ in range(50):
            observation, reward, *_, infos = envs.step(random_actions(envs.action_masks(), rng))
            seen += [observation["knobs"].tobytes(), reward.tobytes(), infos["point"].tolist()]
        runs.append(seen)
    assert runs[0] == runs[1]


def test_an_environment_does_not_depend_on_those_beside_it(gmm: str) -> None:
    few, many = make(gmm, 2), make(gmm, 5)
    assert few.reset(seed=4)[1]["point"].tolist() == many.reset(seed=4)[1]["point"].tolist()[:2]
    rng = np.random.default_rng(2)
    for _ in range(60):
        actions = random_actions(many.action_masks(), rng)
        actions[2:] = STOP
        infos, others = few.step(actions[:2])[-1], many.step(actions)[-1]
        assert infos["point"].tolist() == others["point"].tolist()[:2]


# -- Gymnasium's conventions ------------------------------------------------------------------


def test_make_vec_uses_the_vector_entry_point_by_default(gmm: str) -> None:
    envs = gymnasium.make_vec("schedenv/Edit-v0", num_envs=3, reward="recorded", table=gmm)
    assert isinstance(envs, EditVectorEnv)
    assert envs.num_envs == 3
    assert envs.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    assert envs.action_space.shape == (3,)
    observation, _ = envs.reset(seed=0)
    assert envs.observation_space.contains(observation)
    assert envs.single_observation_space.contains({k: v[0] for k, v in observation.items()})
    assert envs.action_masks().shape == (3, 319)


def test_arguments_survive_json(gmm: str) -> None:
    envs = make(gmm, layout={"tiles": 14}, max_steps=7)
    assert envs.spec is not None
    again = gymnasium.make_vec(type(envs.spec).from_json(envs.spec.to_json()))
    assert again.observation_space == envs.observation_space
    assert again.reset(seed=6)[1]["point"].tolist() == envs.reset(seed=6)[1]["point"].tolist()


def test_in_same_step_mode_the_next_episode_starts_at_once(gmm: str) -> None:
    envs = make(gmm, 4, autoreset_mode="same_step")
    other = make(gmm, 4)
    envs.reset(seed=1)
    other.reset(seed=1)
    actions = np.array([STOP, 7, STOP, 8])
    observation, reward, terminated, truncated, infos = envs.step(actions)
    last, last_reward, *_, last_infos = other.step(actions)
    ended = actions == STOP
    np.testing.assert_array_equal(terminated, ended)
    assert not truncated.any()
    np.testing.assert_array_equal(reward, last_reward)
    np.testing.assert_array_equal(infos["_final_obs"], ended)
    np.testing.assert_array_equal(infos["_final_info"], ended)
    assert infos["final_obs"][1] is None
    for key, value in last.items():
        np.testing.assert_array_equal(infos["final_obs"][0][key], value[0])
    assert infos["final_info"]["point"].tolist() == [
        last_infos["point"][0],
        None,
        last_infos["point"][2],
        None,
    ]
    started, *_, started_infos = other.step(np.zeros(4, int))
    for key in ("knobs", "progress"):
        np.testing.assert_array_equal(observation[key][ended], started[key][ended])
    assert (infos["point"] == started_infos["point"])[ended].all()
    assert infos["trials"].tolist() == [
        started_infos["trials"][0],
        last_infos["trials"][1],
        started_infos["trials"][2],
        last_infos["trials"][3],
    ]


def test_without_autoreset_the_caller_resets_what_is_over(gmm: str) -> None:
    envs = make(gmm, 3, autoreset_mode="disabled")
    _, before = envs.reset(seed=2)
    _, _, terminated, _, after = envs.step(np.array([STOP, 7, 7]))
    assert terminated.tolist() == [True, False, False]
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"^the episodes of environments \[0\]"):
        envs.step(np.array([7, 7, 7]))
    _, infos = envs.reset(options={"reset_mask": terminated})
    assert infos["_point"].tolist() == [True, False, False]
    assert infos["point"].tolist()[1:] == [None, None]
    assert infos["trials"].tolist()[1:] == [0, 0]
    *_, infos = envs.step(np.array([STOP, STOP, STOP]))
    assert infos["point"].tolist()[1:] == after["point"].tolist()[1:]
    assert before["point"][0] != infos["point"][0]


def test_returned_arrays_are_not_overwritten_by_later_steps(gmm: str) -> None:
    envs = make(gmm)
    first, infos = envs.reset(seed=0)
    kept = {key: value.copy() for key, value in first.items()}
    trials = infos["trials"].copy()
    for value in envs.step(np.full(ENVS, 7))[0].values():
        value[:] = -1
    envs.step(np.zeros(ENVS, int))
    for key, value in first.items():
        np.testing.assert_array_equal(value, kept[key])
    np.testing.assert_array_equal(infos["trials"], trials)
    observation, _ = envs.reset(seed=0)
    np.testing.assert_array_equal(observation["task"], kept["task"])


def test_a_task_can_be_named_at_reset(table_paths: dict[str, str]) -> None:
    envs = make(list(table_paths.values()))
    assert envs.task_names == SPECS
    for name in (*SPECS, table_paths[SPECS[1]]):
        _, infos = envs.reset(seed=0, options={"task": name})
        assert set(infos["task"]) == {SPECS[1] if name.endswith("parquet") else name}


@pytest.mark.parametrize("scheme", ["log_ratio", "relative", "terminal", "shaped"])
def test_the_schemes_pay_what_their_formulas_say(scheme: str, gmm: str) -> None:
    envs = make(gmm, 4, scheme=scheme, discount=0.9, autoreset_mode="same_step", max_steps=5)
    rng = np.random.default_rng(0)
    base = 10.0
    _, infos = envs.reset(seed=1)
    before = infos["latency_us"]
    for _ in range(20):
        _, paid, terminated, truncated, infos = envs.step(random_actions(envs.action_masks(), rng))
        done = terminated | truncated
        after = infos["latency_us"].copy()
        failed, illegal = infos["status"] != "ok", infos["illegal"].copy()
        if done.any():
            after[done] = infos["final_info"]["latency_us"][done]
            failed[done] = (infos["final_info"]["status"] != "ok")[done]
            illegal[done] = infos["final_info"]["illegal"][done]
        potential = np.log(base / after)
        expected, end = {
            "log_ratio": (np.log(before / after), 0 * after),
            "relative": (before / after - 1, 0 * after),
            "terminal": (0 * after, potential),
            "shaped": (0.9 * potential - np.log(base / before), 0.1 * potential),
        }[scheme]
        np.testing.assert_allclose(
            paid, expected + done * end - 1.0 * failed - 0.1 * illegal, atol=1e-9
        )
        before = infos["latency_us"]


def test_an_episode_can_start_at_a_named_point(gmm: str) -> None:
    envs = make(gmm)
    _, infos = envs.reset(seed=0)
    named = str(infos["point"][0])
    _, infos = envs.reset(options={"point": named})
    assert set(infos["point"]) == {named}


def test_the_schedules_are_rendered_as_text(gmm: str) -> None:
    envs = make(gmm, 2, render_mode="ansi")
    assert envs.render() is None
    envs.reset(seed=0)
    texts = envs.render()
    assert texts is not None
    assert len(texts) == 2
    assert all(text.startswith(f"{SPECS[0]}: ") and "sketch" in text for text in texts)
    silent = make(gmm, 2)
    silent.reset(seed=0)
    assert silent.render() is None


# -- refusals ---------------------------------------------------------------------------------


def test_measured_rewards_are_refused_with_the_way_to_have_them() -> None:
    with pytest.raises(InputError) as refusal:
        gymnasium.make_vec("schedenv/Edit-v0", num_envs=2, task="gmm:1x16x16x16")
    assert str(refusal.value) == (
        "the vector environment steps all environments at once, and measuring is one candidate at "
        "a time; use gymnasium.make(..., reward='measured'), or reward='recorded' with table=... "
        "or reward='predicted' with model=..."
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"reward": "oracle"},
            "expected reward to be one of ['recorded', 'predicted'], got 'oracle'",
        ),
        (
            {"reward": "recorded"},
            "reward='recorded' needs table=..., a recorded table's file",
        ),
        (
            {"reward": "predicted"},
            "reward='predicted' needs model=..., a cost model's folder",
        ),
        (
            {"reward": "predicted", "model": "m", "table": "t"},
            "table='t' is for reward='recorded', and the reward is 'predicted'; leave it out or "
            "change the reward",
        ),
        (
            {"reward": "predicted", "model": "m"},
            "reward='predicted' needs task=..., such as 'gmm:1x128x128x128', a list of tasks or "
            "the name of a suite",
        ),
        (
            {"render_mode": "human"},
            "expected render_mode to be one of ['ansi'] or None, got 'human'",
        ),
        (
            {"scheme": "speedup"},
            "expected scheme to be one of ['log_ratio', 'relative', 'shaped', 'terminal'], "
            "got 'speedup'",
        ),
        ({"discount": 0.0}, "expected a discount above 0 and up to 1, got 0.0"),
        ({"num_envs": 0}, "expected num_envs of at least 1, got 0"),
        ({"max_steps": 0}, "expected max_steps of at least 1, got 0"),
        (
            {"autoreset_mode": "never"},
            "expected autoreset_mode to be one of ['next_step', 'same_step', 'disabled'], "
            "got 'never'",
        ),
    ],
)
def test_arguments_that_mean_nothing_are_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as refusal:
        EditVectorEnv(**arguments)
    assert str(refusal.value) == message


def test_a_task_that_the_table_does_not_hold_is_refused(gmm: str) -> None:
    with pytest.raises(UnknownNameError) as refusal:
        make(gmm, task="sfm:8x12")
    assert str(refusal.value) == "unknown task of these tables 'sfm:8x12'; known: gmm:1x32x32x32"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"task": "sfm:8x12"},
            "unknown task of this environment 'sfm:8x12'; known: gmm:1x32x32x32",
        ),
        ({"start": 1}, "expected reset options among point, reset_mask, task, got start"),
        (
            {"reset_mask": np.zeros(ENVS, bool)},
            "expected options['reset_mask'] as booleans of shape (8,), one of them True at least; "
            "got shape (8,), type bool, 0 of them true",
        ),
    ],
)
def test_options_that_mean_nothing_are_refused(
    options: dict[str, Any], message: str, gmm: str
) -> None:
    with pytest.raises(InputError) as refusal:
        make(gmm).reset(options=options)
    assert str(refusal.value) == message


def test_a_table_that_does_not_fit_is_refused_with_the_limit(gmm: str) -> None:
    with pytest.raises(InputError, match=r"raise it with layout=\{'tiles': 4\}$"):
        make(gmm, layout={"tiles": 3})


def test_steps_before_the_first_reset_are_refused(gmm: str) -> None:
    envs = make(gmm)
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"^call reset before step$"):
        envs.step(np.zeros(ENVS, int))
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"^call reset before action_masks$"):
        envs.action_masks()
    with pytest.raises(
        gymnasium.error.ResetNeeded, match=r"^call reset for all environments first"
    ):
        envs.reset(options={"reset_mask": np.arange(ENVS) == 0})


@pytest.mark.parametrize(
    ("actions", "message"),
    [
        ([0, 0], "expected 3 integers, shape (3,); got an array of shape (2,) and type int64"),
        (
            [0.5, 0.0, 0.0],
            "expected 3 integers, shape (3,); got an array of shape (3,) and type float64",
        ),
        ([0, 319, 0], "expected actions from 0 to 318, got 319 for environment 1"),
        ([0, 0, -1], "expected actions from 0 to 318, got -1 for environment 2"),
    ],
)
def test_actions_outside_the_space_are_refused(actions: Any, message: str, gmm: str) -> None:
    envs = make(gmm, 3)
    envs.reset(seed=0)
    with pytest.raises(gymnasium.error.InvalidAction, match=f"^{re.escape(message)}$"):
        envs.step(np.array(actions))


def test_the_wrong_number_of_seeds_is_refused(gmm: str) -> None:
    with pytest.raises(InputError, match=r"^expected one seed or 3 of them, got 2$"):
        make(gmm, 3).reset(seed=[1, 2])


@pytest.mark.parametrize("point", ["x", "0:1", "9:1,1"])
def test_a_named_start_that_is_not_in_the_table_is_refused(point: str, gmm: str) -> None:
    with pytest.raises(IllegalPointError):
        make(gmm).reset(options={"point": point})


def test_a_named_start_that_fails_is_refused(gmm: str) -> None:
    table: Table = read_table(Path(gmm))
    failing = next(row for row in table.rows if row.estimate_s is None)
    with pytest.raises(
        MachineError,
        match=f"^none of 1 starting points of {SPECS[0]} works; the last: wrong_result, off by 3.1 "
        "times the tolerance. Run: schedenv doctor$",
    ):
        make(gmm).reset(options={"point": str(failing.point)})
