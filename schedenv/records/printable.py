"""Stored text on a terminal: names and reasons come from files that anybody may have written."""

from __future__ import annotations

import unicodedata

# Control and format characters (terminal escapes, bidirectional overrides), lone surrogates, and
# the line and paragraph separators; everything that acts instead of being seen.
_ACTING = frozenset({"Cc", "Cf", "Cs", "Zl", "Zp"})


def printable(text: str, *, limit: int | None = None, lines: bool = False) -> str:
    r"""Text that is safe to print: what would act on the terminal is shown as `\x1b` instead.

    Args:
        text: Anything.
        limit: Longest result in characters, an ellipsis included; None for no limit.
        lines: Keep line ends.
    """
    if limit is not None and len(text) > limit:
        text = text[: limit - 1] + "…"
    shown = "".join(
        character
        if (lines and character == "\n") or unicodedata.category(character) not in _ACTING
        else _escaped(character)
        for character in text
    )
    return shown if limit is None or len(shown) <= limit else shown[: limit - 1] + "…"


def _escaped(character: str) -> str:
    code = ord(character)
    return (
        f"\\x{code:02x}"
        if code < 0x100
        else f"\\u{code:04x}"
        if code < 0x10000
        else f"\\U{code:08x}"
    )
