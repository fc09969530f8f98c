"""Results in T4, the open format of the autotuning community (schema version 1.0.0).

The schema is KernelTuner's `schema/T4/1.0.0`. Times are milliseconds, as Kernel Tuner's are.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from schedenv.hardware import Hardware
from schedenv.measure.result import Result, Status
from schedenv.records.export import new_file
from schedenv.records.record import Record
from schedenv.space import Point, SearchSpace
from schedenv.space.knobs import ChoiceKnob, TileKnob

SCHEMA_VERSION = "1.0.0"
RESULTS = "results.json"
METADATA = "metadata.json"

# T4 has no word for a crash, or for a clock that returned nonsense: both are run-time failures.
_INVALIDITY = {
    Status.OK: "correct",
    Status.CONSTRAINT: "constraints",
    Status.BUILD_ERROR: "compile",
    Status.BUILD_TIMEOUT: "timeout",
    Status.RUN_ERROR: "runtime",
    Status.RUN_TIMEOUT: "timeout",
    Status.CRASH: "runtime",
    Status.WRONG_RESULT: "correctness",
    Status.NOISY: "runtime",
    Status.CANCELLED: "runtime",
}


def export_t4(
    records: Sequence[Record], space: SearchSpace, hardware: Hardware, directory: Path
) -> None:
    """Write `results.json` and `metadata.json`.

    Args:
        records: Of one task.
        space: The task's space, which names the knobs.
        hardware: Of the machine that the records were measured on.
        directory: Where the files go.

    Raises:
        OutputDirError: They are there already, or cannot be written.
    """
    results = {
        "schema_version": SCHEMA_VERSION,
        "results": [_result(record, space) for record in records],
    }
    for name, content in ((RESULTS, results), (METADATA, _metadata(records, hardware))):
        new_file(directory, name).write_text(json.dumps(content, indent=1) + "\n")


def configuration(space: SearchSpace, point: Point) -> dict[str, int]:
    """A point's decisions by name: a tile's factors numbered from the outermost level."""
    named = {"sketch": point.sketch}
    for knob in space.sketches[point.sketch].knobs:
        values = point.values[knob.start : knob.start + knob.width]
        if isinstance(knob, TileKnob):
            named |= {f"{knob.name}[{level}]": factor for level, factor in enumerate(values)}
        elif isinstance(knob, ChoiceKnob):
            named[knob.name] = knob.choices[values[0]]
        else:
            named[knob.name] = values[0]
    return named


def _result(record: Record, space: SearchSpace) -> dict[str, Any]:
    result = record.result
    phases = result.phases
    return {
        "timestamp": record.created_at,
        "configuration": configuration(space, result.point),
        "objectives": ["time"],
        "times": {
            "compilation_time": (phases.apply_s + phases.build_s + phases.jit_s) * 1e3,
            "runtimes": [sample_s * 1e3 for sample_s in result.samples_s],
            "validation": phases.verify_s * 1e3,
        },
        "invalidity": _INVALIDITY[result.status],
        "correctness": _correctness(result),
        "measurements": _measurements(result),
    }


def _correctness(result: Result) -> float:
    """1 if the output was compared with the reference and is right, else 0."""
    return 1.0 if result.status is Status.OK else 0.0


def _measurements(result: Result) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [
        {"name": "status", "value": result.status.value, "unit": ""},
        {"name": "run_time", "value": result.phases.run_s * 1e3, "unit": "ms"},
    ]
    if result.estimate_s is not None:
        found.append({"name": "time", "value": result.estimate_s * 1e3, "unit": "ms"})
    if result.reason is not None:
        found.append({"name": "reason", "value": result.reason, "unit": ""})
    return found


def _metadata(records: Sequence[Record], hardware: Hardware) -> dict[str, Any]:
    versions = {
        f"{package}=={record.conditions[key]}"
        for record in records
        for key, package in (("tvm", "apache-tvm"), ("schedenv", "schedenv"))
        if isinstance(record.conditions.get(key), str)
    }
    return {
        "schema_version": SCHEMA_VERSION,
        "metadata": {
            "hardware": {
                "hardware_description": [hardware.to_dict()],
                "operating_system": platform.system(),
            },
            "environment": {"device_query": {}, "requirements": sorted(versions)},
        },
    }
