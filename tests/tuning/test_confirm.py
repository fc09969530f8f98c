"""The verdict at the end of a tuning run, on this machine."""

import numpy as np
import pytest

from schedenv.hardware import Hardware
from schedenv.space import UNTUNED, Space
from schedenv.tasks import Task
from schedenv.tuning.confirm import confirm


def test_the_verdict_on_a_real_machine_has_a_winner_at_least_as_good_as_the_baseline(
    tiny_task: Task, hardware: Hardware, tiny_space: Space
) -> None:
    rng = np.random.default_rng(0)
    finalists = [tiny_space.sample(rng) for _ in range(2)]
    verdict = confirm(tiny_task, hardware, finalists)
    assert verdict.point in [UNTUNED, *finalists]
    assert verdict.ratios[0] <= verdict.ratios[1] <= verdict.ratios[2]
    assert len(verdict.tuned.samples_s) >= 2
    if verdict.point == UNTUNED:
        assert verdict.ratios == (1.0, 1.0, 1.0)
        assert verdict.tuned.samples_s == verdict.baseline.samples_s


@pytest.mark.slow
def test_without_finalists_the_untuned_program_wins(tiny_task: Task, hardware: Hardware) -> None:
    verdict = confirm(tiny_task, hardware, [])
    assert verdict.point == UNTUNED
    assert verdict.ratios == (1.0, 1.0, 1.0)
    assert verdict.max_error is not None
    assert verdict.max_error < 1
    assert verdict.baseline.low_s <= verdict.baseline.latency_s <= verdict.baseline.high_s
