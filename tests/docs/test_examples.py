"""The examples run, for a few hundred steps, and say what they reached."""

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch

FOLDER = Path(__file__).parents[2] / "docs" / "examples"


def load(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_example_is_tested() -> None:
    assert {path.stem for path in FOLDER.glob("*.py")} == {
        "annealing_agent",
        "cleanrl_ppo",
        "dqn",
        "maskable_ppo",
    }


@pytest.mark.slow
def test_maskable_ppo(capsys: pytest.CaptureFixture[str]) -> None:
    load("maskable_ppo").main(["gmm", "dep", "--steps", "256", "--envs", "8"])
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"256 steps; mean return of the last episodes -?\d+\.\d\d", lines[0])
    for line, task in zip(lines[1:], ("gmm:1x128x128x128", "dep:1x28x28x64x3x1x1"), strict=True):
        assert line.startswith(f"{task}: ")
        within_8, whole = (float(share) for share in re.findall(r"([\d.]+)%", line))
        assert 0 < within_8 <= whole <= 100


@pytest.mark.slow
def test_dqn(capsys: pytest.CaptureFixture[str]) -> None:
    load("dqn").main(["gmm", "--steps", "400"])
    (line,) = capsys.readouterr().out.splitlines()
    assert re.fullmatch(
        r"gmm:1x128x128x128: [\d.]+% of the known optimum's speed, mean of 20 episodes; "
        r"\d+% of the actions illegal",
        line,
    )


def test_cleanrl_ppo(capsys: pytest.CaptureFixture[str]) -> None:
    load("cleanrl_ppo").main(["gmm", "--steps", "768", "--envs", "8"])
    lines = capsys.readouterr().out.splitlines()
    # The first rollout only tells the mean and the deviation of the inputs.
    assert [line.split()[0] for line in lines] == ["512", "768"]
    assert all(line.endswith("% of the known optimum") for line in lines)


@pytest.mark.slow
def test_cleanrl_ppo_learns(capsys: pytest.CaptureFixture[str]) -> None:
    load("cleanrl_ppo").main(["dep", "--steps", "120000"])
    last = capsys.readouterr().out.splitlines()[-1]
    (share,) = re.findall(r"reached ([\d.]+)%", last)
    assert float(share) > 95


def test_cleanrls_advantages_are_the_definitions() -> None:
    module = load("cleanrl_ppo")
    rng = np.random.default_rng(0)
    steps, envs, gamma, lam = 6, 3, 0.9, 0.8
    rewards, values = rng.normal(size=(2, steps, envs))
    ended = (rng.random((steps, envs)) < 0.3).astype(float)
    after = rng.normal(size=envs)
    found = module.advantages_of(
        *map(torch.from_numpy, (rewards, values, ended, after)), gamma, lam
    ).numpy()
    following = np.vstack([values[1:], after])
    deltas = rewards + gamma * following * (1 - ended) - values
    for env in range(envs):
        for step in range(steps):
            total, weight = 0.0, 1.0
            for later in range(step, steps):
                total += weight * deltas[later, env]
                weight *= gamma * lam * (1 - ended[later, env])
            assert found[step, env] == pytest.approx(total)
