"""A question to a process of its own: whatever a library does there, this process goes on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from schedenv import hardware as hw
from schedenv.errors import MachineError


def ask(
    module: str, request: dict[str, Any], hardware: hw.Hardware, timeout_s: float, what: str
) -> dict[str, Any]:
    """The answer of `python -m MODULE REQUEST`: the last line that it prints, as JSON.

    Args:
        module: What answers.
        request: Its argument, as JSON.
        hardware: Whose cores it uses.
        timeout_s: When to give up.
        what: What is asked about, for people: "the kernels of network.so".

    Raises:
        MachineError: It fails, or takes too long.
    """
    try:
        done = subprocess.run(
            [sys.executable, "-m", module, json.dumps(request)],
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env={**os.environ, **hw.worker_environment(hardware)},
        )
    except subprocess.TimeoutExpired:
        raise MachineError(f"{what} were not timed within {timeout_s:.0f} s") from None
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise MachineError(
            f"{what} cannot be timed (exit code {done.returncode}): "
            f"{said[-1] if said else 'no message'}"
        )
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer
