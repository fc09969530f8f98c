"""Every exception that schedenv raises on purpose.

One hierarchy, rooted in `SchedenvError`, so that a caller can catch it whole. A message says what
was expected, what came, and what to do next. A candidate schedule that fails is *not* an
exception: it is a `schedenv.measure.Result` with a status.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class SchedenvError(Exception):
    """Root of all errors that schedenv raises on purpose."""


class InputError(SchedenvError, ValueError):
    """The user gave something that cannot be used: a name, a shape, a budget, a file."""


class UnknownNameError(InputError):
    """A name that no registry knows; the message lists the closest matches."""

    def __init__(self, kind: str, name: str, known: Iterable[str], hint: str = "") -> None:
        options = sorted(known)
        near = difflib.get_close_matches(name, options, n=3, cutoff=0.5)
        message = f"unknown {kind} {name!r}"
        if near:
            message += "; did you mean " + " or ".join(repr(match) for match in near) + "?"
        else:
            message += "; known: " + ", ".join(options)
        super().__init__(message + (f" {hint}" if hint else ""))


class ShapeError(InputError):
    """A shape that is malformed, non-positive or absurd for its operator."""


class ProgramFileError(InputError):
    """A user's Python file that cannot be imported, or does not define what it should."""


class NetworkFileError(InputError):
    """A network's file that cannot be read, or is no network that can be tuned."""


class UnsupportedOperatorsError(NetworkFileError):
    """A network with operators that TVM's front end does not convert; the message lists them."""


class MissingShapesError(NetworkFileError):
    """A network whose inputs have extents that nobody has given a number."""


class NetworkOutputError(SchedenvError, RuntimeError):
    """A compiled network whose outputs are not those of the original."""


class OutputDirError(InputError):
    """A run directory that is not writable, or already holds a run."""


class EpisodeError(InputError):
    """A saved episode that cannot be read, or is not of this version."""


class TableError(InputError):
    """A recorded table that cannot be used."""


class CorruptTableError(TableError):
    """A recorded table whose file is damaged, or whose content contradicts itself."""


class ForeignTableError(TableError):
    """A file that is not a recorded table, or one of a newer format."""


class PointNotRecordedError(InputError):
    """A point that a recorded table does not hold."""


class ModelError(InputError):
    """A saved cost model that cannot be used."""


class CorruptModelError(ModelError):
    """A saved cost model whose files are missing, damaged or contradict each other."""


class ForeignModelError(ModelError):
    """A saved cost model of other hardware, or of another version of what it is made from."""


class CheckpointError(InputError):
    """A checkpoint of a trained policy that cannot be used."""


class CorruptCheckpointError(CheckpointError):
    """A checkpoint whose files are missing, damaged or contradict each other."""


class ForeignCheckpointError(CheckpointError):
    """Something that is no checkpoint of schedenv, or one of another version of its spaces."""


class TrainingDivergedError(SchedenvError, RuntimeError):
    """A policy whose weights are no longer finite; its last checkpoint is from before."""


class AgentError(SchedenvError, RuntimeError):
    """An agent broke its contract; the message names it."""


class ModelOutputError(SchedenvError, RuntimeError):
    """A cost model that predicts something else than one finite number a point."""


class MachineError(SchedenvError, RuntimeError):
    """The machine or its installation cannot do what was asked."""


class InstallError(MachineError):
    """A broken or missing dependency; the message names the command that mends it."""


class MissingExtraError(InstallError):
    """An optional dependency is not installed; the message names the extra."""

    def __init__(self, module: str, extra: str, purpose: str) -> None:
        super().__init__(
            f"{purpose} needs the package {module!r}, which is not installed; "
            f"run: pip install 'schedenv[{extra}]'"
        )


class MemoryLimitError(MachineError):
    """A task that does not fit in memory."""


class WorkerError(MachineError):
    """A measurement worker cannot be started, again and again; the fault is not a candidate's."""


class DeviceError(MachineError):
    """Devices of a fleet, or their tracker, cannot be reached or are not what they should be."""


class DeviceLostError(DeviceError):
    """A device disappeared while kernels were compared on it; another one may do."""


class StoreError(SchedenvError, RuntimeError):
    """The record store cannot be read or written."""


class CorruptStoreError(StoreError):
    """The record store's file is damaged or is not a record store."""


class StoreLockedError(StoreError):
    """Another process holds the record store for longer than it is waited for."""


class UnreadableRecordsWarning(UserWarning):
    """Some records of a store cannot be read and were left out; the message says how many."""


class ForeignRecordsError(StoreError):
    """The record store holds records of other hardware, or another space or schema version."""


class ConstraintError(SchedenvError, ValueError):
    """A point that TVM refuses to apply; measured, it becomes the status `constraint`."""


class IllegalPointError(SchedenvError, ValueError):
    """A point or move that is not part of its space."""
