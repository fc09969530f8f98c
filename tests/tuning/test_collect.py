"""What is asked for when training data is collected."""

import json

import numpy as np
import pytest

from schedenv.space import Space
from schedenv.tuning.collect import CollectRequest, Sampler

from .synthetic import bowl, failed, ok


def asked(space: Space, seed: int, rounds: int = 20) -> list[list[object]]:
    sampler = Sampler(space, seed)
    batches: list[list[object]] = []
    for _ in range(rounds):
        points = sampler.ask(8)
        sampler.tell([ok(point, bowl(point)) for point in points])
        batches.append(list(points))
    return batches


def test_points_are_legal_and_not_asked_for_twice(tiny_space: Space) -> None:
    points = [point for batch in asked(tiny_space, 0) for point in batch]
    assert [tiny_space.explain_illegal(point) for point in points] == [None] * len(points)
    assert len(set(points)) == len(points) == 160


def test_the_same_seed_and_results_give_the_same_points(tiny_space: Space) -> None:
    assert asked(tiny_space, 3) == asked(tiny_space, 3)
    assert asked(tiny_space, 3) != asked(tiny_space, 4)


def test_some_points_are_neighbours_of_good_ones_and_most_are_not(tiny_space: Space) -> None:
    sampler = Sampler(tiny_space, 0)
    first = sampler.ask(40)
    sampler.tell([ok(point, bowl(point)) for point in first])
    best = sorted(first, key=bowl)[:5]
    near = {neighbour for point in best for neighbour in tiny_space.neighbours(point)}
    share = np.mean([point in near for point in sampler.ask(200)])
    assert 0.15 < share < 0.35


def test_where_nothing_works_it_goes_on_drawing(tiny_space: Space) -> None:
    sampler = Sampler(tiny_space, 0)
    for _ in range(5):
        sampler.tell([failed(point) for point in sampler.ask(8)])
    assert len(sampler.ask(8)) == 8
    assert json.loads(json.dumps(sampler.state_dict())) == sampler.state_dict()


def test_a_small_space_does_not_hang_it(tiny_space: Space) -> None:
    from schedenv.space import Restriction, SubSpace

    part = SubSpace.of(
        tiny_space,
        Restriction.parse('{"sketches": {"1": {"Z.v_i": "*,1,1,8", "Z.v_j": "*,1,1,8"}}}'),
    )
    sampler = Sampler(part, 0)
    for _ in range(3):
        sampler.tell([ok(point, bowl(point)) for point in sampler.ask(200)])


@pytest.mark.parametrize(
    ("out", "store"),
    [
        ("data", "data/records.sqlite"),
        ("data/all.sqlite", "data/all.sqlite"),
        ("postgresql+psycopg://me@host/name", "postgresql+psycopg://me@host/name"),
    ],
)
def test_results_go_into_a_directory_a_file_or_a_database(out: str, store: str) -> None:
    assert CollectRequest((), 1, 0, out).store == store
