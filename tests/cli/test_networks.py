"""What is printed of a tuned network."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from schedenv.cli.networks import print_report


def row(name: str, vendor_us: float | None) -> dict[str, Any]:
    """A kernel's."""
    return {
        "kernel": name, "calls": 2, "untuned_us": 1234.5, "tuned_us": 12.3, "in_network_us": 13.4,
        "vendor_us": vendor_us, "roofline_us": 10.0,
    }  # fmt: skip


def report(**changed: Any) -> dict[str, Any]:
    """A network's, with one kernel."""

    def ends(middle: float) -> dict[str, float]:
        return {"estimate": middle, "low": middle * 0.9, "high": middle * 1.1}

    return {
        "kernels": [row("fused_conv2d_add_relu", 15.0)],
        "latency_us": {
            "schedenv": ends(1500.0), "tvm-untuned": ends(90e3), "onnxruntime": ends(1800.0),
        },
        "speedup": {"tvm-untuned": ends(60.0), "onnxruntime": ends(1.2)},
        "verified": {"against": "onnxruntime"},
        "left_out": {}, "untried": None, "untimed": None, "unprofiled": None, "tune_next": [],
        "trials": 1234, "seconds": 60.0,
        **changed,
    }  # fmt: skip


def printed(content: dict[str, Any]) -> str:
    """On a terminal of 80 columns."""
    console = Console(file=io.StringIO(), width=80)
    print_report(content, Path("run"), console)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def test_the_table_fits_and_the_verdict_has_its_intervals() -> None:
    text = printed(report())
    table = text[: text.index("1.500 ms")].splitlines()
    assert all(len(line) <= 80 for line in table)
    assert any("Runtime" in line for line in table)
    assert (
        "1.500 ms (95 % 1.350 to 1.650), outputs verified against ONNX Runtime; 60.0x faster than "
        "untuned TVM (90.00 ms), 1.20x (95 % 1.08 to 1.32) the speed of ONNX Runtime (1.800 ms)\n"
    ) in text
    assert "Most to gain" not in text


def test_without_a_profile_of_the_vendor_it_has_no_column() -> None:
    text = printed(report(kernels=[row("matmul", None)], unprofiled="it hangs"))
    assert "Runtime" not in text[: text.index("1.500 ms")]
    assert "kernels of ONNX Runtime are not timed: it hangs\n" in text


def test_kernels_that_had_no_turn_are_counted() -> None:
    waiting = row("matmul", None) | {"untuned_us": None, "tuned_us": None}
    assert "untuned:" not in printed(report())
    assert (
        "1 of 2 kernels are untuned: the budget ended before their turn; go on with a larger "
        "--seconds and --resume\n"
    ) in printed(report(kernels=[waiting, row("conv", None)]))


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("tune_next", ["a", "b"], "Most to gain: a, b\n"),
        ("untried", "they hang", "not all fast kernels were tried in the network: they hang\n"),
        ("untimed", "it died", "kernels are not timed in the network: it died\n"),
        ("left_out", {"torch": "no such file"}, "torch was left out: no such file\n"),
    ],
)
def test_what_is_to_be_known_is_said(key: str, value: Any, said: str) -> None:
    assert said in printed(report(**{key: value}))
