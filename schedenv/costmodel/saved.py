"""Loading a cost model from the folder that `CostModel.save` wrote."""

from __future__ import annotations

import hashlib
from pathlib import Path

import msgspec

from schedenv import hardware as hw
from schedenv.costmodel.model import FORMAT_VERSION, INFO_FILE, CostModel, ModelInfo
from schedenv.costmodel.token_model import TokenModel
from schedenv.costmodel.trees import TreeModel
from schedenv.errors import CorruptModelError, ForeignModelError, ModelError, UnknownNameError
from schedenv.hardware import Hardware
from schedenv.space import SPACE_VERSION

KINDS: dict[str, type[CostModel]] = {model.kind: model for model in (TreeModel, TokenModel)}
"""The kinds of cost model, by name."""

_MOST_BYTES = 256 << 20


class _Version(msgspec.Struct):
    """The one field that all versions of the description have."""

    format_version: int


def make_model(kind: str, seed: int = 0) -> CostModel:
    """A model of a kind, not fitted yet.

    Raises:
        UnknownNameError: There is no such kind.
    """
    if kind not in KINDS:
        raise UnknownNameError("cost model", kind, KINDS)
    return KINDS[kind](seed)


def load_model(
    folder: Path, hardware: Hardware | None = None, *, allow_foreign: bool = False
) -> CostModel:
    """Load a saved model of any kind.

    Args:
        folder: What `CostModel.save` or `schedenv fit` wrote.
        hardware: The machine that it is to predict for; None for this one.
        allow_foreign: Take a model of other hardware too. Its ranking may still be of use; its
            estimates of speed-ups are of the other machine.

    Raises:
        ModelError: There is no model.
        CorruptModelError: Its files are missing, damaged or do not belong together.
        ForeignModelError: It is of other hardware, or of another version of schedenv's points,
            features or files.
        MissingExtraError: The library of the model is not installed.
    """
    info = read_info(folder)
    model = make_model(info.kind, info.seed)
    for what, theirs, ours in (
        ("space", info.space_version, SPACE_VERSION),
        ("feature", info.feature_version, model.feature_version),
    ):
        if theirs != ours:
            raise ForeignModelError(
                f"the cost model {folder} is of {what} version {theirs}; this schedenv uses "
                f"version {ours}. Fit it again with schedenv fit"
            )
    here = (hardware or hw.detect()).fingerprint
    if info.hardware.fingerprint != here and not allow_foreign:
        raise ForeignModelError(
            f"the cost model {folder} was trained on the hardware {info.hardware.fingerprint}, "
            f"and is to predict for {here}. Fit one here (schedenv collect, schedenv fit), or "
            "pass allow_foreign=True to use its ranking all the same"
        )
    model.restore(info, _read_weights(folder, model, info))
    return model


def read_info(folder: Path) -> ModelInfo:
    """Read the description of a saved model, whatever hardware and space it is of.

    Raises:
        ModelError: There is no model.
        CorruptModelError: The description is damaged.
        ForeignModelError: It is of a newer format.
    """
    path = folder / INFO_FILE
    try:
        text = path.read_bytes()
    except FileNotFoundError:
        raise ModelError(
            f"{folder} holds no cost model ({INFO_FILE} is missing); expected the --out folder "
            "of schedenv fit"
        ) from None
    except OSError as error:
        raise ModelError(f"{path} cannot be read ({error.strerror or error})") from None
    try:
        found = msgspec.json.decode(text, type=_Version).format_version
        if found > FORMAT_VERSION:
            raise ForeignModelError(
                f"{path} has model format {found}, this schedenv reads up to {FORMAT_VERSION}; "
                "upgrade schedenv"
            )
        info = msgspec.json.decode(text, type=ModelInfo)
    except (msgspec.MsgspecError, UnicodeError, RecursionError) as error:
        raise CorruptModelError(
            f"{path} is damaged ({error}); fit the model again with schedenv fit"
        ) from None
    if info.kind not in KINDS:
        raise CorruptModelError(
            f"{path} is of the unknown kind {info.kind!r}; expected one of {sorted(KINDS)}"
        )
    return info


def _read_weights(folder: Path, model: CostModel, info: ModelInfo) -> bytes:
    path = folder / model.weights_file
    try:
        if path.stat().st_size > _MOST_BYTES:
            raise CorruptModelError(f"{path} is larger than any cost model ({_MOST_BYTES} bytes)")
        weights = path.read_bytes()
    except OSError as error:
        raise CorruptModelError(
            f"{path} cannot be read ({error.strerror or error}); fit the model again with "
            "schedenv fit"
        ) from None
    if hashlib.sha256(weights).hexdigest() != info.weights_sha256:
        raise CorruptModelError(
            f"{path} does not match its digest in {INFO_FILE}; fit the model again with "
            "schedenv fit"
        )
    return weights
