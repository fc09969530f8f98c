"""Scalars for TensorBoard."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from schedenv.errors import MissingExtraError


class ScalarLog:
    """Appends scalars to an event file.

    Args:
        folder: Of the event files.
        first_step: What earlier runs logged from here on is hidden: it came after the checkpoint
            that this run goes on from.

    Raises:
        MissingExtraError: TensorBoard is not installed.
    """

    def __init__(self, folder: Path, first_step: int) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise MissingExtraError("tensorboard", "train", "logging of scalars") from None
        self._writer = SummaryWriter(str(folder), purge_step=first_step or None)

    def add(self, scalars: Mapping[str, float], step: int) -> None:
        """Log scalars of a step."""
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, step)

    def flush(self) -> None:
        """Write what is pending."""
        self._writer.flush()

    def close(self) -> None:
        """Write what is pending and close the file."""
        self._writer.close()
