"""The networks of these experiments by name: the file that is tuned, and its twin for the peers."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from exported_networks import EXPORTED, as_onnx, export
from light_networks import as_torch, with_random_weights

LIGHT = ("squeezenet", "resnet50", "inception_v1", "vgg19")
NAMES = (*LIGHT, *EXPORTED)


@dataclass(frozen=True)
class NetworkFiles:
    """One network with one set of random weights, in two formats.

    Attributes:
        tuned: What schedenv imports; who runs it, ONNX Runtime or torch, is the judge.
        onnx: For ONNX Runtime.
        torch: For torch.
    """

    tuned: Path
    onnx: Path
    torch: Path


def network_files(name: str, folder: Path) -> NetworkFiles:
    """Write a network's files where they do not exist yet.

    Raises:
        ValueError: There is no network of that name.
    """
    if name not in NAMES:
        raise ValueError(f"unknown network {name!r}; known: {', '.join(NAMES)}")
    folder.mkdir(parents=True, exist_ok=True)
    onnx, torch = folder / f"{name}.onnx", folder / f"{name}.pt2"
    if name in LIGHT:
        if not onnx.exists():
            with_random_weights(name, onnx)
        if not torch.exists():
            as_torch(onnx, torch)
        return NetworkFiles(onnx, onnx, torch)
    if not torch.exists():
        export(name, torch)
    if not onnx.exists():
        as_onnx(torch, onnx)
    return NetworkFiles(torch, onnx, torch)
