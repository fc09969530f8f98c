"""PPO with masks in one file, in the manner of CleanRL: nothing between you and the update.

    pip install 'schedenv[train,tables]'
    python docs/examples/cleanrl_ppo.py gmm dep --steps 500000

After CleanRL's `ppo.py` (Huang et al., JMLR 2022) and "A Closer Look at Invalid Action Masking"
(Huang and Ontañón, 2022). The vector environment steps all environments in numpy; Gymnasium's
same-step autoreset starts the next episode in the step that ends one, so an episode that was
truncated is completed with the value of its last observation, in `info["final_obs"]`.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from typing import Any

import gymnasium
import numpy as np
import torch
from torch import Tensor, nn

import schedenv  # noqa: F401 - registers the environments


def flat(observations: Mapping[str, np.ndarray]) -> Tensor:
    """The keys of the Dict one after the other, shape (n, features)."""
    joined = [observations[key] for key in sorted(observations)]
    return torch.from_numpy(np.concatenate(joined, axis=-1))


def layer(inputs: int, outputs: int, gain: float = 2**0.5) -> nn.Linear:
    """A linear layer, orthogonal at the start."""
    made = nn.Linear(inputs, outputs)
    nn.init.orthogonal_(made.weight, gain)
    nn.init.zeros_(made.bias)
    return made


class Agent(nn.Module):
    """A policy and a value, two hidden layers each."""

    def __init__(self, features: int, actions: int, width: int = 128) -> None:
        super().__init__()

        def network(outputs: int, gain: float) -> nn.Sequential:
            return nn.Sequential(
                layer(features, width), nn.Tanh(), layer(width, width), nn.Tanh(),
                layer(width, outputs, gain),
            )  # fmt: skip

        self.policy, self.critic = network(actions, 0.01), network(1, 1.0)
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("scale", torch.ones(features))

    def normalise(self, seen: Tensor) -> None:
        """Take mean and deviation from observations; what does not vary is ignored from now on."""
        deviation = seen.std(dim=0)
        self.mean = seen.mean(dim=0)
        self.scale = torch.where(deviation > 1e-6, 1 / deviation, torch.zeros_like(deviation))

    def value(self, observations: Tensor) -> Tensor:
        """What the rest of the episode is worth, shape (n,)."""
        return self.critic((observations - self.mean) * self.scale).squeeze(-1)

    def distribution(self, observations: Tensor, masks: Tensor) -> torch.distributions.Categorical:
        """Over the legal actions alone: the others' logits are set to where exp is zero."""
        logits = self.policy((observations - self.mean) * self.scale)
        return torch.distributions.Categorical(
            logits=logits.masked_fill(~masks, -1e8), validate_args=False
        )


def advantages_of(
    rewards: Tensor, values: Tensor, ended: Tensor, following: Tensor, gamma: float, lam: float
) -> Tensor:
    """Generalised advantage estimation (Schulman et al., 2016), all arrays (steps, envs).

    Args:
        rewards: Of each step; where a step was truncated, with the value of what was cut off.
        values: Before each step.
        ended: Whether the step ended an episode.
        following: The value after the last step, shape (envs,).
        gamma: Discount.
        lam: GAE's lambda.
    """
    advantages, running = torch.zeros_like(rewards), torch.zeros_like(following)
    for step in reversed(range(len(rewards))):
        alive = 1.0 - ended[step]
        delta = rewards[step] + gamma * following * alive - values[step]
        running = delta + gamma * lam * alive * running
        advantages[step], following = running, values[step]
    return advantages


def rollout(
    envs: gymnasium.vector.VectorEnv, agent: Agent, observations: Any, chosen: Any
) -> tuple[dict[str, Tensor], Any, list[float]]:
    """Some steps of all environments.

    Returns:
        What happened, arrays (steps, envs, ...); the observations after it; and the share of the
        known optimum that each episode reached which ended.
    """
    kept: dict[str, list[Tensor]] = {}
    reached: list[float] = []
    for _ in range(chosen.rollout):
        with torch.no_grad():
            now, masks = flat(observations), torch.from_numpy(envs.unwrapped.action_masks())
            found = agent.distribution(now, masks)
            actions, values = found.sample(), agent.value(now)
        observations, paid, terminated, truncated, info = envs.step(actions.numpy())
        rewards = torch.from_numpy(paid).float()
        if truncated.any():
            cut = [info["final_obs"][i] for i in np.flatnonzero(truncated)]
            last = {key: np.stack([one[key] for one in cut]) for key in cut[0]}
            with torch.no_grad():
                rewards[torch.from_numpy(truncated)] += chosen.gamma * agent.value(flat(last))
        ended = terminated | truncated
        if ended.any():
            reached += info["final_info"]["optimum_fraction"][ended].tolist()
        for name, tensor in (
            ("observations", now),
            ("masks", masks),
            ("actions", actions),
            ("log_probs", found.log_prob(actions)),
            ("values", values),
            ("rewards", rewards),
            ("ended", torch.from_numpy(ended).float()),
        ):
            kept.setdefault(name, []).append(tensor)
    return {name: torch.stack(tensors) for name, tensors in kept.items()}, observations, reached


def update(
    agent: Agent, optimizer: torch.optim.Optimizer, batch: Mapping[str, Tensor], chosen: Any
) -> None:
    """PPO's clipped update: some epochs over the batch, in minibatches."""
    count = len(batch["actions"])
    for _ in range(chosen.epochs):
        for picked in torch.randperm(count).split(chosen.minibatch):
            part = {name: tensor[picked] for name, tensor in batch.items()}
            found = agent.distribution(part["observations"], part["masks"])
            ratio = (found.log_prob(part["actions"]) - part["log_probs"]).exp()
            gain = part["advantages"]
            gain = (gain - gain.mean()) / (gain.std() + 1e-8)
            clipped = ratio.clamp(1 - chosen.clip, 1 + chosen.clip)
            policy_loss = -torch.min(gain * ratio, gain * clipped).mean()
            value_loss = (agent.value(part["observations"]) - part["returns"]).square().mean()
            entropy = found.entropy().mean()
            loss = policy_loss + 0.5 * value_loss - chosen.entropy * entropy
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(agent.parameters(), 0.5)
            optimizer.step()


def main(arguments: Sequence[str] | None = None) -> None:
    """Train, and print what the episodes reach as it goes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tables", nargs="+", help="recorded tables: files or shipped names")
    parser.add_argument("--steps", type=int, default=500_000)
    parser.add_argument("--envs", type=int, default=256)
    parser.add_argument("--rollout", type=int, default=32, help="steps between two updates")
    parser.add_argument("--minibatch", type=int, default=2048)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--gamma", type=float, default=0.99)
    parser.add_argument("--lam", type=float, default=0.95)
    parser.add_argument("--clip", type=float, default=0.2)
    parser.add_argument("--entropy", type=float, default=0.01)
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args(arguments)

    torch.manual_seed(chosen.seed)
    torch.set_num_threads(1)  # the networks are too small to share
    envs = gymnasium.make_vec(
        "schedenv/Edit-v0", chosen.envs, reward="recorded", table=chosen.tables,
        autoreset_mode="same_step",
    )  # fmt: skip
    observations, _ = envs.reset(seed=chosen.seed)
    agent = Agent(flat(observations).shape[1], int(envs.unwrapped.single_action_space.n))
    optimizer = torch.optim.Adam(agent.parameters(), lr=chosen.learning_rate, eps=1e-5)

    start_s = time.monotonic()
    for iteration in range(1, max(2, 1 + chosen.steps // (chosen.envs * chosen.rollout))):
        batch, observations, reached = rollout(envs, agent, observations, chosen)
        if iteration == 1:
            agent.normalise(batch["observations"].flatten(0, 1))
            continue  # these steps were taken with other inputs
        with torch.no_grad():
            following = agent.value(flat(observations))
        batch["advantages"] = advantages_of(
            batch["rewards"], batch["values"], batch["ended"], following, chosen.gamma, chosen.lam
        )
        batch["returns"] = batch["advantages"] + batch["values"]
        update(agent, optimizer, {k: v.flatten(0, 1) for k, v in batch.items()}, chosen)
        steps = iteration * chosen.envs * chosen.rollout
        share = f"{np.mean(reached):.1%}" if reached else "-"
        print(
            f"{steps} steps, {steps / (time.monotonic() - start_s):.0f} steps/s: "
            f"{len(reached)} episodes reached {share} of the known optimum"
        )
    envs.close()


if __name__ == "__main__":
    main()
