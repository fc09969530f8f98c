"""No kernel is faster than the machine: the time below which a measurement cannot be true."""

from __future__ import annotations

from schedenv.calibration import Peaks
from schedenv.tasks import Task

_MARGIN = 3.0
"""The peak may have been calibrated on a busy machine, or at a lower clock."""

_BYTES_PER_FLOP = 2.0
"""Two vector loads a cycle beside two fused multiply-adds: what the first-level cache gives."""

_COUNT_IS_A_BOUND = frozenset(
    {"c1d", "c2d", "c3d", "gmm", "grp", "dil", "dep", "cap", "cbr", "tbg", "nrm", "sfm"}
)
"""Families whose counted operations no schedule can avoid. A compiler may skip the zeros between
the inputs of a transposed convolution, and what a user's own program needs is not known."""


def floor_s(task: Task, peaks: Peaks) -> float:
    """Seconds that one run of the task takes at the very least.

    Args:
        task: What is run.
        peaks: What the machine reaches.

    Returns:
        A third of the time that its operations, or loading and storing its buffers once, take at
        the calibrated peak.
    """
    operations = task.flops if task.family in _COUNT_IS_A_BOUND else 0.0
    return max(operations, task.bytes / _BYTES_PER_FLOP) / (_MARGIN * peaks.flops_per_s)
