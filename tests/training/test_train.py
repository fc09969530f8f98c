"""Runs of a trainer: budgets, resuming, and what they log."""

import json
import os
import re
import signal
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from schedenv.envs.actions import STOP
from schedenv.errors import InputError, OutputDirError, TrainingDivergedError
from schedenv.measure.table_file import shipped_tables
from schedenv.training import RandomPolicy, load_policy
from schedenv.training.counting import CountingEnvs
from schedenv.training.sources import Sources
from schedenv.training.train import Outcome, Progress, Request, train

Requests = Callable[..., Request]


def weights(folder: Path) -> Mapping[str, Any]:
    (path,) = folder.glob("policy-*.npz")
    with np.load(path) as arrays:
        return dict(arrays)


def test_equal_seeds_and_steps_give_equal_weights(
    request_of: Requests, trained: Outcome, trained_folder: Path, tmp_path: Path
) -> None:
    train(request_of(tmp_path / "again"))
    train(request_of(tmp_path / "other", seed=4))
    first, again, other = map(weights, (trained_folder, tmp_path / "again", tmp_path / "other"))
    assert all(np.array_equal(first[name], again[name]) for name in first)
    assert not all(np.array_equal(first[name], other[name]) for name in first)


def test_a_run_that_is_over_can_be_given_more_steps(request_of: Requests, tmp_path: Path) -> None:
    first = train(request_of(tmp_path, 64)).info
    before = weights(tmp_path)
    again = train(request_of(tmp_path, 192, resume=True)).info
    assert (first.steps, again.steps) == (64, 192)
    assert again.seconds > first.seconds
    assert not np.array_equal(before["action_net.weight"], weights(tmp_path)["action_net.weight"])
    np.testing.assert_array_equal(
        before["features_extractor.mean"], weights(tmp_path)["features_extractor.mean"]
    )
    assert load_policy(tmp_path).info == again


def test_resuming_with_nothing_left_changes_no_weight(request_of: Requests, tmp_path: Path) -> None:
    train(request_of(tmp_path, 64))
    before = weights(tmp_path)
    assert train(request_of(tmp_path, 64, resume=True)).info.steps == 64
    after = weights(tmp_path)
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_progress_says_how_far_it_is_and_how_long_it_takes(
    request_of: Requests, tmp_path: Path
) -> None:
    seen: list[tuple[int, float | None, dict[str, float]]] = []

    def watch(progress: Progress) -> None:
        seen.append((progress.steps, progress.remaining_s, dict(progress.scalars)))

    train(request_of(tmp_path, 192), watch)
    assert [steps for steps, _, _ in seen] == [64, 128, 192]
    assert seen[0][1] is not None
    assert seen[0][1] > 0.0
    assert seen[-1][1] == 0.0
    for key in ("env/geomean_speedup", "env/failure_rate", "env/share_of_optimum",
                "env/held_out_share_of_optimum", "env/steps_per_second", "train/loss"):  # fmt: skip
        assert key in seen[-1][2]


def test_scalars_are_in_tensorboards_event_file(trained_folder: Path, trained: Outcome) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(trained_folder / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("env/failure_rate")] == [64, 128]
    held_out = events.Scalars("env/held_out_geomean_speedup")
    assert [event.step for event in held_out] == [0, 128]
    expected = trained.info.metrics["env/held_out_geomean_speedup"]
    assert held_out[-1].value == pytest.approx(expected)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_run_with_a_checkpoint(
    request_of: Requests, tmp_path: Path, number: signal.Signals
) -> None:
    handlers = signal.getsignal(number)

    def interrupt(progress: Progress) -> None:
        if progress.steps == 128:
            os.kill(os.getpid(), number)

    outcome = train(request_of(tmp_path, 10_000), interrupt)
    assert outcome.interrupted_by == number
    assert outcome.info.steps == 128
    assert load_policy(tmp_path).info.steps == 128
    assert signal.getsignal(number) is handlers


def test_weights_that_are_not_finite_end_the_run_and_not_the_checkpoint(
    request_of: Requests, tmp_path: Path
) -> None:
    settings = (*request_of(tmp_path).settings, "learning_rate=1e30")
    with pytest.raises(TrainingDivergedError) as error:
        train(request_of(tmp_path, 1000, settings=settings))
    assert re.fullmatch(
        r"training diverged at \d+ steps: the weights are no longer finite. The last checkpoint is "
        r"from before; train anew with a smaller learning rate \(--set learning_rate=...\)",
        str(error.value),
    )
    assert all(np.isfinite(array).all() for array in weights(tmp_path).values())


def test_a_batch_of_one_step_is_refused(request_of: Requests, tmp_path: Path) -> None:
    settings = (*request_of(tmp_path).settings, "batch_size=1")
    with pytest.raises(InputError) as error:
        train(request_of(tmp_path, settings=settings))
    assert str(error.value) == (
        "expected at least 2 steps in a batch, for advantages are normalised; got batch_size=1 and "
        "64 steps in a rollout"
    )


def test_a_run_of_other_arguments_is_not_resumed(request_of: Requests, tmp_path: Path) -> None:
    train(request_of(tmp_path, 64))
    with pytest.raises(OutputDirError) as error:
        train(request_of(tmp_path, 128, seed=9, resume=True))
    assert str(error.value) == (
        f"--out {tmp_path} holds a run of seed 3, not 9; repeat the command that started it with "
        "--resume, or choose another --out"
    )
    with pytest.raises(OutputDirError, match=r"already holds a run; continue it with --resume"):
        train(request_of(tmp_path))
    with pytest.raises(OutputDirError, match=r"holds no run to resume"):
        train(request_of(tmp_path / "none", resume=True))


def test_the_run_is_described(trained: Outcome, trained_folder: Path) -> None:
    run = json.loads((trained_folder / "run.json").read_text())
    assert (run["command"], run["agent"], run["seed"], run["steps"]) == ("train", "ppo", 3, 128)
    assert run["settings"]["environments"] == 8
    assert len(run["hardware"]) == 1


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        (
            {"steps": None, "seconds": None},
            "training needs --seconds, --steps, or both; neither was given",
        ),
        ({"steps": 0}, "expected --steps above 0, got 0"),
        ({"seconds": float("nan")}, "expected --seconds above 0, got nan"),
    ],
)
def test_a_budget_that_is_none_is_refused(
    request_of: Requests, tmp_path: Path, limits: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError) as error:
        request_of(tmp_path, **{"steps": 1, **limits})
    assert str(error.value) == message


SHIPPED = "Shipped tables: "


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ([], [], [], None),
            "expected either --table, for recorded rewards, or --suite or --task with --model, "
            "for predicted ones; got neither. " + SHIPPED,
        ),
        (
            (["gmm"], ["core"], [], "m"),
            "expected either --table, for recorded rewards, or --suite or --task with --model, "
            "for predicted ones; got both. " + SHIPPED,
        ),
        (
            ([], ["core"], [], None),
            "predicted rewards need --model, the folder of a cost model that schedenv fit wrote",
        ),
        (
            (["gmm"], [], [], "m"),
            "--model is for predicted rewards, of a --suite or a --task; tables need none",
        ),
        (
            (["gmm", "dep"], [], ["dep", "gmm"], None),
            "nothing is left to train on: all of gmm, dep is held out; name more, or hold out less",
        ),
    ],
)
def test_sources_that_cannot_be_used_are_refused(
    arguments: tuple[Any, Any, Any, Any], message: str
) -> None:
    with pytest.raises(InputError) as error:
        Sources.of(*arguments)
    assert str(error.value).startswith(message)


def test_what_is_held_out_is_taken_from_what_is_trained_on() -> None:
    assert Sources.of(["gmm", "c1d", "gmm"], [], ["c1d", "dep"], None) == Sources(
        ("gmm",), ("c1d", "dep")
    )


def test_a_program_trained_on_cannot_be_held_out_under_another_name() -> None:
    sources = Sources.of(["gmm"], [], [str(shipped_tables()["gmm"])], None)
    with pytest.raises(InputError) as error:
        _ = sources.held_out_tasks
    assert str(error.value) == (
        "gmm:1x128x128x128 is held out, and its program is also trained on, as gmm:1x128x128x128; "
        "leave one of them out"
    )


def test_counting_environments_tell_failures_and_ends(
    tables: dict[str, str],
) -> None:
    envs = CountingEnvs(16, reward="recorded", table=tables["gmm:1x16x16x16"], max_steps=5)
    envs.reset(seed=0)
    rng = np.random.default_rng(0)
    tried = failed = illegal = 0
    best, ended, shares = envs.reset(seed=0)[1]["speedup"], [], []
    for _ in range(40):
        actions = RandomPolicy().act({}, envs.action_masks(), rng)
        actions[:2] = 318  # almost never legal
        _, _, terminated, truncated, info = envs.step(actions)
        for i in range(16):
            over = bool(terminated[i] or truncated[i])
            last = info["final_info"] if over else info
            illegal += last["illegal"][i]
            if not last["illegal"][i] and actions[i] != STOP:
                tried += 1
                failed += last["status"][i] != "ok"
            best[i] = max(best[i], last["speedup"][i])
            if over:
                ended.append(best[i])
                shares.append(last["optimum_fraction"][i])
                best[i] = info["speedup"][i]
    assert failed > 0
    assert illegal > 0
    assert envs.drain() == {
        "env/failure_rate": pytest.approx(failed / tried),
        "env/illegal_rate": pytest.approx(illegal / (40 * 16)),
        "env/geomean_speedup": pytest.approx(np.exp(np.log(ended).mean())),
        "env/episode_steps": pytest.approx(40 * 16 / len(ended)),
        "env/share_of_optimum": pytest.approx(np.mean(shares)),
    }
    assert envs.drain() == {"env/failure_rate": 0.0, "env/illegal_rate": 0.0}
