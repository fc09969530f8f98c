"""The trainer `ppo`: its policy in numpy is the one that torch trains, and it learns."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from schedenv_agents.ppo import PpoPolicy, PpoTrainer

from schedenv.envs.vector import EditVectorEnv
from schedenv.training import RandomPolicy, roll_out

SETTINGS = {**PpoTrainer.defaults, "environments": 16, "rollout_steps": 16, "batch_size": 64,
            "width": 32}  # fmt: skip


@pytest.fixture(scope="module")
def envs() -> Iterator[EditVectorEnv]:
    made = EditVectorEnv(
        16, reward="recorded", table=["gmm", "dep"], max_steps=8, autoreset_mode="same_step"
    )
    yield made
    made.close()


@pytest.fixture(scope="module")
def trainer(envs: EditVectorEnv) -> PpoTrainer:
    trainer = PpoTrainer(envs, 0, SETTINGS)
    trainer.learn()
    return trainer


def test_the_policy_in_numpy_takes_the_actions_of_the_one_in_torch(
    trainer: PpoTrainer, envs: EditVectorEnv
) -> None:
    policy = PpoTrainer.make_policy(trainer.weights())
    model: Any = trainer._model
    observations, _ = envs.reset(seed=1)
    rng = np.random.default_rng(0)
    for _ in range(8):
        masks = envs.action_masks()
        theirs, _ = model.predict(observations, action_masks=masks, deterministic=True)
        np.testing.assert_array_equal(policy.act(observations, masks), theirs)
        with torch.no_grad():
            tensors = {key: torch.from_numpy(value) for key, value in observations.items()}
            logits = model.policy.get_distribution(tensors).distribution.logits.numpy()
        own = policy.logits(observations)  # type: ignore[attr-defined]
        np.testing.assert_allclose(
            own - own.max(1, keepdims=True), logits - logits.max(1, keepdims=True), atol=1e-4
        )
        observations, *_ = envs.step(RandomPolicy().act(observations, masks, rng))


def test_inputs_are_normalised_and_constants_are_silent(trainer: PpoTrainer) -> None:
    scale = trainer.weights()["features_extractor.scale"]
    names = ["hardware", "knob_mask", "knobs", "progress", "sketch", "task"]
    sizes = {"hardware": 3, "knob_mask": 57, "knobs": 57, "progress": 3, "sketch": 12, "task": 17}
    parts = np.split(scale, np.cumsum([sizes[name] for name in names])[:-1])
    by_name = dict(zip(names, parts, strict=True))
    assert (by_name["hardware"] == 0).all()
    assert (by_name["progress"] > 1).all()
    # Two families are trained on; the others' entries never vary.
    assert np.count_nonzero(by_name["task"][:-3]) == 2
    assert np.isfinite(scale).all()


def test_a_restored_trainer_goes_on_with_the_same_networks_and_moments(
    trainer: PpoTrainer, envs: EditVectorEnv
) -> None:
    other = PpoTrainer(envs, 5, SETTINGS)
    other.restore(trainer.weights(), trainer.state(), trainer.steps)
    assert other.steps == trainer.steps == 256
    for mine, theirs in ((other.weights(), trainer.weights()), (other.state(), trainer.state())):
        assert mine.keys() == theirs.keys()
        assert all(np.array_equal(mine[name], theirs[name]) for name in mine)
    assert any(name.endswith("exp_avg_sq") for name in other.state())
    other.learn()
    assert other.steps == 512


def test_weights_of_another_width_are_refused(trainer: PpoTrainer, envs: EditVectorEnv) -> None:
    narrow = PpoTrainer(envs, 0, {**SETTINGS, "width": 8})
    with pytest.raises(ValueError, match="size mismatch"):
        narrow.restore(trainer.weights(), trainer.state(), 1)
    broken = {**trainer.weights(), "action_net.weight": np.zeros((319, 5), np.float32)}
    with pytest.raises(ValueError, match=r"^action_net has shape \(319, 5\) after 32 values$"):
        PpoPolicy(broken)


def test_training_leaves_torchs_threads_as_they_were(trainer: PpoTrainer) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        trainer.learn()
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


@pytest.mark.slow
def test_it_learns_a_table_far_better_than_random_walks() -> None:
    def made(count: int) -> EditVectorEnv:
        return EditVectorEnv(count, reward="recorded", table="dep", autoreset_mode="same_step")

    trainer = PpoTrainer(made(256), 0, PpoTrainer.defaults)
    for _ in range(14):
        trainer.learn()
    policy = PpoTrainer.make_policy(trainer.weights())
    learned = roll_out(policy, made(128)).share()
    rng = np.random.default_rng(0)
    random = roll_out(RandomPolicy(), made(128), rng=rng, may_stop=False).share()
    assert learned is not None
    assert random is not None
    assert learned > 0.95 > random + 0.1
