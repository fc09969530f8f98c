"""What every cost model promises."""

import json
import re
import subprocess
import sys
from pathlib import Path

import msgspec
import numpy as np
import pytest

from schedenv.costmodel import (
    KINDS,
    CostModel,
    TrainingData,
    judge,
    judge_scores,
    load_model,
    make_model,
    mean_quality,
)
from schedenv.errors import (
    CorruptModelError,
    ForeignModelError,
    InputError,
    ModelError,
    ModelOutputError,
    OutputDirError,
)
from schedenv.hardware import Hardware
from schedenv.space import Restriction, Space, SubSpace
from schedenv.tasks import Task

pytestmark = pytest.mark.parametrize("kind", sorted(KINDS))

HELD_OUT = "gmm:1x96x32x64"

_fitted: dict[str, CostModel] = {}


@pytest.fixture
def model(kind: str, data: TrainingData) -> CostModel:
    """A model fitted once, with one task held out."""
    if kind not in _fitted:
        _fitted[kind] = make_model(kind)
        _fitted[kind].fit(data.split([HELD_OUT])[0])
    return _fitted[kind]


def test_it_ranks_a_task_that_it_never_saw_better_than_chance(
    model: CostModel, data: TrainingData
) -> None:
    held = data.split([HELD_OUT])[1]
    quality = mean_quality(judge(model, held))
    rng = np.random.default_rng(0)
    chance = [
        judge_scores(held[0].estimates_s, rng.random(40).astype(np.float32)) for _ in range(100)
    ]
    assert quality.pairwise > max(luck.pairwise for luck in chance)
    assert quality.kendall_tau > max(luck.kendall_tau for luck in chance)
    assert quality.top5 >= np.median([luck.top5 for luck in chance])


def test_differences_of_scores_estimate_log_speedups(model: CostModel, data: TrainingData) -> None:
    seen = data.split([HELD_OUT])[0].tasks[0]
    scores = model.predict(seen.task, seen.space, seen.points)[seen.ok]
    speeds = -np.log(seen.estimates_s[seen.ok])
    slope = np.polyfit(speeds, scores, 1)[0]
    assert 0.5 < slope < 1.5


def test_it_predicts_one_float32_a_point_in_their_order(
    model: CostModel, data: TrainingData
) -> None:
    entry = data.tasks[0]
    scores = model.predict(entry.task, entry.space, entry.points)
    assert (scores.shape, scores.dtype) == ((len(entry.points),), np.float32)
    backwards = model.predict(entry.task, entry.space, entry.points[::-1])
    np.testing.assert_allclose(backwards[::-1], scores, rtol=1e-4, atol=1e-5)
    assert model.predict(entry.task, entry.space, []).shape == (0,)


def test_equal_data_and_seeds_give_equal_models(
    model: CostModel, kind: str, data: TrainingData
) -> None:
    again = make_model(kind)
    again.fit(data.split([HELD_OUT])[0])
    entry = data.tasks[-1]
    np.testing.assert_array_equal(
        again.predict(entry.task, entry.space, entry.points),
        model.predict(entry.task, entry.space, entry.points),
    )


def test_another_seed_gives_another_model(model: CostModel, kind: str, data: TrainingData) -> None:
    other = make_model(kind, seed=1)
    other.fit(data.split([HELD_OUT])[0])
    entry = data.tasks[-1]
    assert not np.array_equal(
        other.predict(entry.task, entry.space, entry.points),
        model.predict(entry.task, entry.space, entry.points),
    )


def test_a_saved_model_predicts_the_same_in_another_process(
    model: CostModel, data: TrainingData, tmp_path: Path
) -> None:
    model.save(tmp_path / "model")
    entry = data.tasks[0]
    program = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "from schedenv import hardware\n"
        "from schedenv.costmodel import load_model\n"
        "from schedenv.space import Point, Space\n"
        "from schedenv.tasks import resolve\n"
        "task = resolve(sys.argv[2])\n"
        "space = Space(task.mod, hardware.detect())\n"
        "points = [Point.parse(text) for text in sys.argv[3:]]\n"
        "scores = load_model(Path(sys.argv[1])).predict(task, space, points)\n"
        "print(json.dumps(scores.tolist()))\n"
    )
    points = entry.points[:20]
    words = [str(tmp_path / "model"), entry.task.spec, *map(str, points)]
    done = subprocess.run(
        [sys.executable, "-c", program, *words], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    here = model.predict(entry.task, entry.space, points)
    assert json.loads(done.stdout.splitlines()[-1]) == here.tolist()


def test_saving_uses_no_pickle_and_says_what_it_was_trained_on(
    model: CostModel, data: TrainingData, tmp_path: Path
) -> None:
    model.save(tmp_path)
    info = json.loads((tmp_path / "model.json").read_text())
    assert info["kind"] == model.kind
    assert info["records"] == 120
    assert [task["spec"] for task in info["tasks"]] == [
        entry.task.spec for entry in data.tasks if entry.task.spec != HELD_OUT
    ]
    assert info["hardware"]["cores"] == data.hardware.cores
    assert {"schedenv", "apache-tvm", "numpy", model.library} == set(info["versions"])
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["model.json", model.weights_file]
    )


def test_a_part_of_a_space_gets_the_scores_of_the_whole(
    model: CostModel, tiny_task: Task, tiny_space: Space
) -> None:
    part = SubSpace.of(
        tiny_space,
        Restriction.parse('{"sketches": {"2": {"Z.v_i": "*,1,1,*", "Z.v_j": "4,1,1,8"}}}'),
    )
    points = list(part.points())[:10]
    np.testing.assert_allclose(
        model.predict(tiny_task, part, points),
        model.predict(tiny_task, tiny_space, points),
        rtol=1e-5,
    )


def edited(folder: Path, **changes: object) -> Path:
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def test_a_model_of_other_hardware_is_refused_unless_allowed(
    model: CostModel, hardware: Hardware, tmp_path: Path
) -> None:
    model.save(tmp_path)
    there = Hardware(**{**vars(hardware), "cores": 77})
    with pytest.raises(ForeignModelError) as refused:
        load_model(tmp_path, there)
    assert str(refused.value) == (
        f"the cost model {tmp_path} was trained on the hardware {hardware.fingerprint}, and is to "
        f"predict for {there.fingerprint}. Fit one here (schedenv collect, schedenv fit), or pass "
        "allow_foreign=True to use its ranking all the same"
    )
    assert load_model(tmp_path, there, allow_foreign=True).kind == model.kind


@pytest.mark.parametrize("what", ["space", "feature"])
def test_a_model_of_another_version_is_refused(model: CostModel, what: str, tmp_path: Path) -> None:
    model.save(tmp_path)
    with pytest.raises(ForeignModelError) as refused:
        load_model(edited(tmp_path, **{f"{what}_version": 99}))
    assert str(refused.value) == (
        f"the cost model {tmp_path} is of {what} version 99; this schedenv uses version 1. "
        "Fit it again with schedenv fit"
    )


def test_a_newer_format_is_refused(model: CostModel, tmp_path: Path) -> None:
    model.save(tmp_path)
    with pytest.raises(ForeignModelError) as refused:
        load_model(edited(tmp_path, format_version=2))
    assert str(refused.value) == (
        f"{tmp_path / 'model.json'} has model format 2, this schedenv reads up to 1; "
        "upgrade schedenv"
    )


def test_damaged_weights_are_refused(model: CostModel, tmp_path: Path) -> None:
    model.save(tmp_path)
    path = tmp_path / model.weights_file
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(CorruptModelError) as refused:
        load_model(tmp_path)
    assert str(refused.value) == (
        f"{path} does not match its digest in model.json; fit the model again with schedenv fit"
    )


def test_weights_that_are_something_else_are_refused(model: CostModel, tmp_path: Path) -> None:
    with pytest.raises(CorruptModelError, match="cannot be read"):
        make_model(model.kind).restore(model.fitted(), b"something else")


@pytest.mark.parametrize("text", ["", "{}", "[1]", '{"format_version": 1}', "\xff"])
def test_a_damaged_description_is_refused(model: CostModel, text: str, tmp_path: Path) -> None:
    model.save(tmp_path)
    (tmp_path / "model.json").write_text(text)
    with pytest.raises(CorruptModelError, match=re.escape(f"{tmp_path / 'model.json'} is damaged")):
        load_model(tmp_path)


def test_a_folder_without_a_model_is_refused(kind: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as refused:
        load_model(tmp_path)
    assert str(refused.value) == (
        f"{tmp_path} holds no cost model (model.json is missing); expected the --out folder of "
        "schedenv fit"
    )


def test_it_must_be_fitted_first(
    kind: str, tiny_task: Task, tiny_space: Space, tmp_path: Path
) -> None:
    expected = f"this {kind} model was not fitted; call fit(data) first, or load one"
    for use in (
        lambda: make_model(kind).predict(tiny_task, tiny_space, [tiny_space.default()]),
        lambda: make_model(kind).save(tmp_path),
    ):
        with pytest.raises(InputError, match=re.escape(expected)):
            use()


def test_a_folder_that_cannot_be_written_is_named(model: CostModel, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputDirError, match="cannot be written"):
        model.save(tmp_path / "file" / "model")


def test_nan_is_an_error(
    model: CostModel, tiny_task: Task, tiny_space: Space, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = np.array([0.5, np.nan, np.inf], np.float32)
    monkeypatch.setattr(model, "_predict", lambda *_: scores)
    with pytest.raises(ModelOutputError) as refused:
        model.predict(tiny_task, tiny_space, [tiny_space.default()] * 3)
    assert str(refused.value) == (
        f"the cost model {model.kind} predicts nan for 2 of 3 points, the first at position 1; "
        "expected finite numbers. Its training diverged or its weights are damaged: fit it again "
        "with schedenv fit"
    )


def test_quality_is_kept_with_the_model(
    model: CostModel, data: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model, "info", model.info)
    qualities = judge(model, data.split([HELD_OUT])[1])
    plain = {name: msgspec.to_builtins(quality) for name, quality in qualities.items()}
    model.note_quality(plain)
    model.save(tmp_path)
    assert load_model(tmp_path).fitted().metrics == plain
