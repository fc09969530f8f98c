"""Tokens: what they show of a point, and that they show it alike for whole batches and parts."""

import sys
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from schedenv.costmodel import TokenModel, TrainingData, make_model
from schedenv.costmodel.tokens import CONTEXT_SIZE, TOKEN_SIZE, Tokenizer
from schedenv.errors import InputError, MissingExtraError
from schedenv.space import Restriction, Space, SubSpace
from schedenv.tasks import Task, members, resolve


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 2**32 - 1))
def test_a_point_has_the_same_tokens_alone_and_in_any_batch(seed: int) -> None:
    space = SPACES["c1d:1x32x16x16x3x1x1"]
    rng = np.random.default_rng(seed)
    rows = space.encode([space.sample(rng) for _ in range(20)])
    tokenizer = Tokenizer(resolve("c1d:1x32x16x16x3x1x1"), space)
    whole = tokenizer.tokens(rows)
    for index in range(20):
        for part, array in zip(tokenizer.tokens(rows[index : index + 1]), whole, strict=True):
            np.testing.assert_array_equal(part[0], array[index])


SPACES: dict[str, Space] = {}


@pytest.fixture(autouse=True, scope="module")
def _spaces(space_of: Callable[[str], Space]) -> None:
    SPACES["c1d:1x32x16x16x3x1x1"] = space_of("c1d:1x32x16x16x3x1x1")


def test_different_points_have_different_tokens(tiny_task: Task, tiny_space: Space) -> None:
    rng = np.random.default_rng(0)
    rows = np.unique(tiny_space.encode([tiny_space.sample(rng) for _ in range(500)]), axis=0)
    tokens = Tokenizer(tiny_task, tiny_space).tokens(rows)
    flat = np.concatenate([tokens.tokens.reshape(len(rows), -1), tokens.context], axis=1)
    assert len(np.unique(flat, axis=0)) == len(rows)


def test_shapes_and_types(tiny_task: Task, tiny_space: Space) -> None:
    tokens = Tokenizer(tiny_task, tiny_space).tokens(tiny_space.encode([tiny_space.default()] * 3))
    assert tokens.tokens.shape == (3, 4, TOKEN_SIZE)
    assert (tokens.mask.shape, tokens.context.shape) == ((3, 4), (3, CONTEXT_SIZE))
    assert all(array.dtype == np.float32 for array in tokens)


def test_a_factor_is_at_its_place_of_the_nest(tiny_task: Task, tiny_space: Space) -> None:
    tokens = Tokenizer(tiny_task, tiny_space).tokens(tiny_space.encode([tiny_space.default()]))
    # 32 in the outermost level, log2 over 8: spatial tiles at S0, the reduction at R0; the first
    # tile is the batch of one.
    assert tokens.tokens[0, :, :6].tolist() == [
        [0, 0, 0, 0, 0, 0],
        [0.625, 0, 0, 0, 0, 0],
        [0.625, 0, 0, 0, 0, 0],
        [0, 0, 0.625, 0, 0, 0],
    ]


def test_a_part_of_a_space_has_the_tokens_of_the_whole(tiny_task: Task, tiny_space: Space) -> None:
    part = SubSpace.of(tiny_space, Restriction.parse('{"sketches": {"1": {"Z.v_i": "*,1,1,8"}}}'))
    points = list(part.points())[:50]
    for one, other in zip(
        Tokenizer(tiny_task, part).tokens(part.encode(points)),
        Tokenizer(tiny_task, tiny_space).tokens(tiny_space.encode(points)),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_no_points_have_no_tokens(tiny_task: Task, tiny_space: Space) -> None:
    tokens = Tokenizer(tiny_task, tiny_space).tokens(tiny_space.encode([]))
    assert [len(array) for array in tokens] == [0, 0, 0]


@pytest.mark.slow
@pytest.mark.parametrize("name", [*members("core"), *members("odd")])
def test_every_suite_member_fits(name: str, space_of: Callable[[str], Space]) -> None:
    space, rng = space_of(name), np.random.default_rng(0)
    tokens = Tokenizer(resolve(name), space).tokens(
        space.encode([space.sample(rng) for _ in range(50)])
    )
    for array in tokens:
        assert np.isfinite(array).all()
        assert np.abs(array).max() < 8


def test_too_many_sketches_name_the_limit(tiny_task: Task, tiny_space: Space) -> None:
    part = SubSpace.of(tiny_space, Restriction.parse('{"sketches": {"1": {"Z.v_i": "*,1,1,8"}}}'))
    part.sketches = part.sketches * 5
    with pytest.raises(InputError) as refused:
        Tokenizer(tiny_task, part)
    assert str(refused.value) == (
        f"{tiny_task.name} has 15 sketches, the tokens of a cost model hold 12; use the cost "
        "model of trees, which has no such limit"
    )


def test_too_many_levels_name_the_limit(tiny_task: Task, tiny_space: Space) -> None:
    part = SubSpace.of(tiny_space, Restriction.parse('{"sketches": {"1": {"Z.v_i": "*,1,1,8"}}}'))
    first = part.sketches[0]
    tile = replace(next(first.tiles()), width=5)
    part.sketches = (replace(first, knobs=(tile, *first.knobs[1:])), *part.sketches[1:])
    with pytest.raises(InputError) as refused:
        Tokenizer(tiny_task, part)
    assert str(refused.value) == (
        f"{tile.name} of {tiny_task.name} has 5 tile levels, the tokens of a cost model hold 4; "
        "use the cost model of trees, which has no such limit"
    )


def test_rows_of_another_space_are_refused(tiny_task: Task, tiny_space: Space) -> None:
    tokenizer = Tokenizer(tiny_task, tiny_space)
    width = 1 + tiny_space.width
    with pytest.raises(InputError) as refused:
        tokenizer.tokens(np.zeros((2, width + 1), np.int32))
    assert str(refused.value) == (
        f"expected rows of shape (n, {width}) as SearchSpace.encode gives them, "
        f"got (2, {width + 1})"
    )
    rows = tiny_space.encode([tiny_space.default()])
    rows[0, 0] = 9
    with pytest.raises(InputError) as refused:
        tokenizer.tokens(rows)
    assert str(refused.value) == ("expected sketches from 0 to 2 in the first column, got 9 to 9")


def test_rows_get_the_scores_of_their_points(data: TrainingData) -> None:
    model = TokenModel(epochs=5)
    model.fit(data)
    entry = data.tasks[0]
    np.testing.assert_array_equal(
        model.predict_rows(entry.task, entry.space, entry.space.encode(entry.points)),
        model.predict(entry.task, entry.space, entry.points),
    )
    assert model.predict_rows(entry.task, entry.space, entry.space.encode([])).shape == (0,)


def test_many_rows_get_the_scores_of_few(data: TrainingData) -> None:
    model = TokenModel(epochs=5)
    model.fit(data)
    entry = data.tasks[0]
    rows = entry.space.encode(entry.points)
    few = model.predict_rows(entry.task, entry.space, rows)
    many = model.predict_rows(entry.task, entry.space, np.tile(rows, (200, 1)))
    np.testing.assert_allclose(many, np.tile(few, 200), rtol=1e-4, atol=1e-5)


def test_tokens_without_torch_name_the_extra(
    data: TrainingData, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtraError) as refused:
        make_model("tokens").fit(data)
    assert str(refused.value) == (
        "the cost model on tokens needs the package 'torch', which is not installed; "
        "run: pip install 'schedenv[models]'"
    )
