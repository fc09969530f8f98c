"""Ask a device of a fleet what it is, in a process of its own: TVM's client waits without limit."""

from __future__ import annotations

import os
import subprocess
import sys

import msgspec

from schedenv.errors import DeviceError
from schedenv.measure.device import Description, DeviceSession
from schedenv.measure.tracker import Fleet, status_command, wait_for_device

_SESSION_S = 30.0
_START_S = 90.0
_ATTEMPTS = 3


class _Question(msgspec.Struct, frozen=True):
    fleet: Fleet
    none_s: float
    busy_s: float


class _Answer(msgspec.Struct, frozen=True):
    description: Description | None = None
    error: str | None = None


def describe(fleet: Fleet, *, none_s: float, busy_s: float) -> Description | None:
    """What the devices of a fleet are, from the first that is free.

    Args:
        fleet: Which devices.
        none_s: How long to wait while none is registered, or the tracker cannot be reached.
        busy_s: How long to wait while all are busy.

    Returns:
        The description; None if the device is served by plain TVM, which does not say.

    Raises:
        DeviceError: No device came free in time, or none answers.
    """
    question = msgspec.json.encode(_Question(fleet, none_s, busy_s)).decode()
    limit_s = _START_S + max(none_s, busy_s) + _SESSION_S
    try:
        done = subprocess.run(
            [sys.executable, "-m", "schedenv.measure.probe", question],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=limit_s,
            check=False,
        )
        answer = msgspec.json.decode(done.stdout, type=_Answer)
    except subprocess.TimeoutExpired:
        answer = _Answer(error=_unusable(fleet, f"no answer in {limit_s:.0f} s"))
    except msgspec.DecodeError:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        answer = _Answer(error=_unusable(fleet, lines[-1] if lines else "no message"))
    if answer.error is not None:
        raise DeviceError(answer.error)
    return answer.description


def _unusable(fleet: Fleet, reason: str) -> str:
    return (
        f"no device of key {fleet.key!r} at the tracker {fleet.tracker} answers ({reason}); "
        f"look with: {status_command(fleet.tracker)}"
    )


def _ask(question: _Question) -> _Answer:
    reason = ""
    for _ in range(_ATTEMPTS):
        try:
            offer = wait_for_device(question.fleet, none_s=question.none_s, busy_s=question.busy_s)
        except DeviceError as error:
            return _Answer(error=str(error))
        # Whatever goes wrong with the connection, another device may do.
        try:
            session = DeviceSession(offer, _SESSION_S)
            description = session.description
            session.close()
            return _Answer(description)
        except Exception as error:
            reason = f"{offer.address}: {error}"
    return _Answer(error=_unusable(question.fleet, reason))


def _main() -> None:
    answer = _ask(msgspec.json.decode(sys.argv[1], type=_Question))
    sys.stdout.buffer.write(msgspec.json.encode(answer))
    sys.stdout.flush()


if __name__ == "__main__":
    _main()
    os._exit(0)
