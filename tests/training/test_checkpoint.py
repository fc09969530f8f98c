"""Checkpoints: what is kept, and what is refused."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from schedenv.envs.vector import EditVectorEnv
from schedenv.errors import (
    CheckpointError,
    CorruptCheckpointError,
    ForeignCheckpointError,
    InputError,
    UnknownNameError,
)
from schedenv.measure.table_file import read_table
from schedenv.training import load_policy
from schedenv.training.checkpoint import INFO_FILE
from schedenv.training.train import Outcome


@pytest.fixture
def folder(trained: Outcome, trained_folder: Path, tmp_path: Path) -> Path:
    """A copy of a checkpoint, to be damaged."""
    return Path(shutil.copytree(trained_folder, tmp_path / "run"))


@pytest.fixture
def edit(folder: Path) -> Callable[..., None]:
    """Change entries of the description; a dotted name goes into an object."""

    def change(**entries: Any) -> None:
        path = folder / INFO_FILE
        content = json.loads(path.read_text())
        for name, value in entries.items():
            *parents, last = name.split("__")
            inner = content
            for parent in parents:
                inner = inner[parent]
            inner[last] = value
        path.write_text(json.dumps(content))

    return change


def test_the_description_has_what_evaluation_needs(
    trained: Outcome, tables: dict[str, str]
) -> None:
    table_path = tables["gmm:1x16x16x16"]
    info, table = trained.info, read_table(Path(table_path)).info
    assert (info.agent, info.seed, info.steps, info.max_steps) == ("ppo", 3, 128, 6)
    assert (info.reward, info.scheme, info.sources) == ("recorded", "log_ratio", (table_path,))
    assert [task.name for task in info.tasks] == [table.task.name]
    assert info.tasks[0].content_hash == table.task.content_hash
    assert info.tasks[0].fingerprint == table.hardware.fingerprint
    assert [task.family for task in info.held_out] == ["tbg"]
    assert info.settings["width"] == 16
    assert info.spaces.actions == 319
    assert {"schedenv", "torch", "sb3-contrib", "numpy"} <= set(info.versions)
    assert 0 < info.metrics["env/held_out_share_of_optimum"] <= 1
    assert info.metrics.keys() >= {
        f"task/{task.title}/share_of_optimum" for task in (*info.tasks, *info.held_out)
    }


def test_a_loaded_policy_acts_in_one_environment_or_in_many(
    trained: Outcome, trained_folder: Path
) -> None:
    policy = load_policy(trained_folder)
    assert policy.info == trained.info
    envs = EditVectorEnv(5, reward="recorded", table="gmm")
    observations, _ = envs.reset(seed=0)
    many = policy.act(observations, envs.action_masks())
    assert envs.action_masks()[np.arange(5), many].all()
    env = gymnasium.make("schedenv/Edit-v0", reward="recorded", table="gmm")
    observation, _ = env.reset(seed=0)
    one = policy.act(observation, env.unwrapped.action_masks())
    assert one.shape == ()
    assert one == many[0]
    env.step(int(one))


def test_an_environment_with_other_spaces_is_refused(
    trained: Outcome, trained_folder: Path
) -> None:
    policy = load_policy(trained_folder)
    envs = EditVectorEnv(2, reward="recorded", table="gmm", layout={"tiles": 16})
    observations, _ = envs.reset(seed=0)
    with pytest.raises(InputError, match=r"^expected observations of \{.*\} and 319 actions, got"):
        policy.act(observations, envs.action_masks())


def test_a_folder_without_a_checkpoint_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError) as error:
        load_policy(tmp_path)
    assert str(error.value) == (
        f"{tmp_path} holds no checkpoint ({INFO_FILE} is missing); expected the --out folder of "
        "schedenv train"
    )


def test_a_zip_of_stable_baselines3_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "model.zip"
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("data", "{}")
    with pytest.raises(ForeignCheckpointError) as error:
        load_policy(path)
    assert str(error.value) == (
        f"{path} is a file; expected a folder that schedenv train wrote. Files of "
        "Stable-Baselines3 contain pickles and are not read: load them with its own load()"
    )


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("format_version", 99, "has checkpoint format 99, this schedenv reads up to 1; upgrade"),
        ("spaces__space_version", 99, "has space version 99; this schedenv has"),
        ("spaces__observation_version", 0, "has observation version 0; this schedenv has 1."),
        ("spaces__actions", 12, "has actions 12; this schedenv has 319. Train it again with"),
        ("spaces__layout", {"shelves": 3}, "is of another layout: expected layout sizes"),
    ],
)
def test_a_checkpoint_of_another_version_is_refused(
    folder: Path, edit: Callable[..., None], entry: str, value: Any, message: str
) -> None:
    edit(**{entry: value})
    with pytest.raises(ForeignCheckpointError) as error:
        load_policy(folder)
    assert message in str(error.value)


def test_an_agent_that_is_not_installed_is_named(folder: Path, edit: Callable[..., None]) -> None:
    edit(agent="ppp")
    with pytest.raises(UnknownNameError, match=r"^unknown agent that can be trained 'ppp'"):
        load_policy(folder)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"format_version": 1}', b"\xff\xfe"])
def test_a_damaged_description_is_refused(folder: Path, text: bytes) -> None:
    (folder / INFO_FILE).write_bytes(text)
    with pytest.raises(CorruptCheckpointError, match=r"is damaged \(.*train again with schedenv"):
        load_policy(folder)


def test_changed_and_missing_weights_are_refused(folder: Path, trained: Outcome) -> None:
    path = folder / trained.info.policy.name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptCheckpointError) as error:
        load_policy(folder)
    assert str(error.value) == (
        f"{path} does not match its digest in {INFO_FILE}; train again with schedenv train"
    )
    path.unlink()
    with pytest.raises(CorruptCheckpointError, match=r"cannot be read \(No such file"):
        load_policy(folder)


def test_the_weights_of_something_else_are_refused(
    folder: Path, trained: Outcome, edit: Callable[..., None]
) -> None:
    edit(policy={"name": trained.info.state.name, "sha256": trained.info.state.sha256})
    with pytest.raises(CorruptCheckpointError) as error:
        load_policy(folder)
    assert str(error.value) == (
        f"the weights of {folder} are not those of a policy of ppo (there is no array "
        "'features_extractor.mean'); train it again with schedenv train"
    )


def test_a_description_cannot_name_a_file_elsewhere(
    folder: Path, trained: Outcome, edit: Callable[..., None]
) -> None:
    outside = folder.parent / "weights.npz"
    shutil.copy(folder / trained.info.policy.name, outside)
    edit(policy__name="../weights.npz")
    with pytest.raises(CorruptCheckpointError, match=r"run/weights\.npz cannot be read"):
        load_policy(folder)


def test_only_the_last_checkpoint_is_kept(trained_folder: Path, trained: Outcome) -> None:
    files = {path.name for path in trained_folder.iterdir()}
    kept = {trained.info.policy.name, trained.info.state.name, INFO_FILE}
    assert files == {*kept, "run.json", "tensorboard"}
