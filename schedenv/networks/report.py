"""What is said of a tuned network: `report.json`, where the time goes, and what to tune next."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from schedenv.calibration import Peaks
from schedenv.networks.build import Built
from schedenv.networks.compare import Comparison
from schedenv.networks.slices import Search, roofline
from schedenv.networks.timing import Range
from schedenv.tuning import run_dir

REPORT = "report.json"
TUNED, UNTUNED = "schedenv", "tvm-untuned"

_NEXT = 3
_WORTHWHILE = 0.005
"""A kernel is to be tuned next if such a share of the network could be gained."""


@dataclass
class KernelTimes:
    """How long kernels take beside their times apart.

    Attributes:
        in_network_s: In the compiled network, all calls of a kernel together.
        vendor_us: One call by the vendor's library, where it can be told.
        untimed: Why the former are not known; None if they are.
        unprofiled: Why the latter are not known; None if they are, or the vendor has no profile.
    """

    in_network_s: dict[str, float] = field(default_factory=dict)
    vendor_us: dict[str, float] = field(default_factory=dict)
    untimed: str | None = None
    unprofiled: str | None = None


def describe(
    search: Search,
    peaks: Peaks,
    comparison: Comparison,
    judge: str,
    built: Built,
    times: KernelTimes,
) -> dict[str, Any]:
    """What was found, the kernels with the largest part of the time first.

    Args:
        search: What was found.
        peaks: The machine's.
        comparison: How fast the networks are.
        judge: Whose outputs were taken for right.
        built: The tuned one.
        times: What its kernels take in it, and the vendor's.
    """
    timings = comparison.timings
    rows = sorted(
        (_describe_kernel(name, search, peaks, built, times) for name in search.kernels),
        # A kernel of which nothing is known goes first: it is the one to be tuned next.
        key=lambda row: -(math.inf if row["total_us"] is None else row["total_us"]),
    )
    return {
        "seconds": search.elapsed_s,
        "trials": sum(kernel.trials for kernel in search.kernels.values()),
        "latency_us": {
            name: _describe_range(times.interval(), 1e6) for name, times in timings.items()
        },
        "speedup": {
            name: _describe_range(times.ratio(timings[TUNED]))
            for name, times in timings.items()
            if name != TUNED
        },
        "verified": {
            "against": judge,
            "error_of_tolerated": comparison.errors,
        },
        "left_out": comparison.left_out,
        "untried": built.untried,
        "untimed": times.untimed,
        "unprofiled": times.unprofiled,
        "sum_of_kernels_us": None
        if any(row["total_us"] is None for row in rows)
        else sum(row["total_us"] for row in rows),
        "roofline_us": sum(float(row["calls"]) * float(row["roofline_us"]) for row in rows),
        "tune_next": tune_next(rows),
        "kernels": rows,
        "untouched": [
            entry.name
            for entry in search.network.description.kernels
            if entry.name not in search.kernels
        ],
    }


def tune_next(rows: Sequence[dict[str, Any]]) -> list[str]:
    """The kernels from which most is to be gained, the most promising first.

    Args:
        rows: Of the kernels, the largest part of the time first.

    Returns:
        Those of which nothing is known; then those that take much longer than the machine or the
        vendor's library needs, if that is a share of the network worth having.
    """
    unknown = [row["kernel"] for row in rows if row["total_us"] is None]
    known = [row for row in rows if row["total_us"] is not None]
    least_us = _WORTHWHILE * sum(row["total_us"] for row in known)
    gains = sorted(((_to_gain_us(row), row["kernel"]) for row in known), reverse=True)
    return [*unknown, *(name for gain_us, name in gains if gain_us > least_us)][:_NEXT]


def _to_gain_us(row: dict[str, Any]) -> float:
    """How much longer all calls take than at the roofline; the vendor may be below it."""
    bounds = [row["roofline_us"], row["vendor_us"] or math.inf]
    return float(row["total_us"] - row["calls"] * min(bounds))


def _describe_range(ends: Range, unit: float = 1.0) -> dict[str, float]:
    low, estimate, high = (end * unit for end in ends)
    return {"estimate": estimate, "low": low, "high": high}


def _describe_kernel(
    name: str, search: Search, peaks: Peaks, built: Built, times: KernelTimes
) -> dict[str, Any]:
    kernel = search.kernels[name]
    state = kernel.state
    variant = built.variants.get(name)
    tuned_s = None
    if state.best_s:
        tuned_s = state.untuned_s if variant is None else variant.result.estimate_s
    calls = 0 if name in built.linked.joined else state.calls
    in_network_s = times.in_network_s.get(name)
    total_s = in_network_s
    if total_s is None and (tuned_s is not None or not calls):
        total_s = calls * (tuned_s or 0.0)
    return {
        "kernel": name,
        "calls": calls,
        "untuned_us": state.untuned_s * 1e6 if state.best_s else None,
        "tuned_us": tuned_s * 1e6 if tuned_s is not None else None,
        "estimated_us": state.now_s * 1e6 if state.best_s else None,
        "in_network_us": in_network_s / calls * 1e6 if in_network_s and calls else None,
        "total_us": total_s * 1e6 if total_s is not None else None,
        "packed": variant is not None and variant.packed is not None,
        "vendor_us": times.vendor_us.get(name),
        "roofline_us": roofline(kernel.task, peaks) * 1e6,
        "gflops_per_s": kernel.task.flops / tuned_s / 1e9 if tuned_s is not None else None,
        "trials": kernel.trials,
        "slices": len(state.best_s),
        "point": str(variant.result.point) if variant is not None else None,
        "point_apart": str(built.apart[name].result.point) if variant is not None else None,
    }


def read_report(out: Path) -> dict[str, Any]:
    """The report of a finished run.

    Raises:
        OutputDirError: There is none.
    """
    return run_dir.read_json(out / REPORT)
