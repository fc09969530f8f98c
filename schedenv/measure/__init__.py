"""The measurement backend: builds, verifies and times candidates in processes that may die."""

from schedenv.measure.measurer import Measurer
from schedenv.measure.result import Phases, Result, Status, robust_estimate

__all__ = ["Measurer", "Phases", "Result", "Status", "robust_estimate"]
