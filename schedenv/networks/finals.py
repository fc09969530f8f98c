"""Which candidates go into the network: each kernel's fastest, timed against each other.

The fastest estimate of a search is the winner of a lottery; see `schedenv.tuning.finalists`.
"""

from __future__ import annotations

import msgspec

from schedenv.errors import MachineError
from schedenv.measure.local import LocalMeasurer
from schedenv.measure.result import robust_estimate
from schedenv.measure.shared import Bench
from schedenv.networks.slices import Search, TunedKernel
from schedenv.tuning.finalists import best_candidates, interleave

FINALISTS = 8
ROUNDS = 40
BUDGET_S = 1.5
"""For one kernel, compiling apart."""

_NEGLIGIBLE = 0.002
"""A kernel with less than this share of the network's time keeps its fastest estimate."""


def confirm_kernels(search: Search, bench: Bench) -> None:
    """Rank the fastest results of each kernel that matters by times taken in turn.

    Args:
        search: What was found; its kernels are changed.
        bench: The measurers'.

    Raises:
        WorkerError: A worker died or hung over what it had run before.
        MachineError: None of a kernel's fastest candidates can be timed again.
    """
    for kernel in search.kernels.values():
        tuned = kernel.best is not None and kernel.state.now_s < kernel.state.untuned_s
        if tuned and kernel.state.calls * kernel.state.now_s >= _NEGLIGIBLE * search.known_s:
            _confirm(kernel, search, bench)


def _confirm(kernel: TunedKernel, search: Search, bench: Bench) -> None:
    records = search.store.records(kernel.task.content_hash)
    points = best_candidates([record.result for record in records], FINALISTS)
    with LocalMeasurer(kernel.task, search.hardware, workers=1, bench=bench) as measurer:
        kernels = measurer.load(points)
        compared = interleave(kernels, ROUNDS, BUDGET_S, search.seed, measurer.slowdown)
    timed = [(result, samples) for result, samples in compared if len(samples) >= 2]
    if not timed:
        raise MachineError(
            f"none of the fastest candidates of {kernel.task.name} can be timed again "
            f"({compared[0][0].reason}); the records are kept. Run: schedenv doctor"
        )
    ranked = sorted(timed, key=lambda entry: robust_estimate(entry[1][: len(entry[1]) // 2]))
    kernel.finalists = tuple(
        # The half that chose says nothing of how fast the chosen one is.
        msgspec.structs.replace(result, estimate_s=robust_estimate(samples[len(samples) // 2 :]))
        for result, samples in ranked
    )
