"""A vendor's kernel in a process of its own: `python -m ... REQUEST`.

Checks the kernel against the task's reference, says how far it is off, and then reads numbers of
calls, one a line, and answers with seconds a call.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import msgspec

from schedenv.baselines.vendor_kernels import make_kernel
from schedenv.measure.timing import uncounted_samples
from schedenv.measure.verify import VerificationData, deviation

_WARM_UPS = 10


class Request(msgspec.Struct, frozen=True):
    """Which kernel.

    Attributes:
        library: Whose.
        family: The operator.
        shape: Its shape string.
        directory: Where the verification data are.
        threads: How many threads the kernel may use.
    """

    library: str
    family: str
    shape: str
    directory: str
    threads: int


class Ready(msgspec.Struct, frozen=True):
    """The first answer.

    Attributes:
        version: The library's.
        max_error: Deviation from the reference, 1 being tolerated.
        call_s: What a call takes about, seconds.
    """

    version: str
    max_error: float
    call_s: float


def _time_s(run: object, calls: int) -> float:
    assert callable(run)
    start_s = time.perf_counter()
    for _ in range(calls):
        run()
    return (time.perf_counter() - start_s) / calls


def main() -> None:
    """Answer until standard input ends."""
    from importlib.metadata import version

    answers = os.fdopen(os.dup(1), "wb", buffering=0)
    os.dup2(2, 1)
    request = msgspec.json.decode(Path(sys.argv[1]).read_bytes(), type=Request)
    data = VerificationData(Path(request.directory))
    inputs, expected = data.sets[0]
    kernel = make_kernel(request.library, request.family, request.shape, inputs, request.threads)
    kernel.run()
    error = deviation([kernel.output()], expected, data.tolerated)
    call_s = min(_time_s(kernel.run, 1) for _ in range(_WARM_UPS))
    answers.write(msgspec.json.encode(Ready(version(request.library), error, call_s)) + b"\n")
    for line in sys.stdin:
        calls = int(line)
        # Not counted: after a pause the library's threads have to wake up.
        _time_s(kernel.run, calls * max(1, uncounted_samples(calls)))
        answers.write(b"%.9e\n" % _time_s(kernel.run, calls))


if __name__ == "__main__":
    main()
