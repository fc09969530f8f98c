"""Markdown files of one section an experiment, filled one by one."""

from __future__ import annotations

from pathlib import Path


def write_section(path: Path, preface: str, name: str, body: str) -> None:
    """Put a section `## name` into a file, in place of the one that is there.

    Args:
        path: The file; made with the preface if it does not exist.
        preface: Its title and what holds for all sections; what the file has is replaced.
        name: The first word of the section's heading.
        body: From the heading on.
    """
    text = path.read_text() if path.exists() else ""
    _, *parts = text.split("\n## ")
    sections = {part.split(maxsplit=1)[0].rstrip(","): f"## {part.strip()}" for part in parts}
    sections[name] = body.strip()
    path.write_text("\n\n".join([preface.strip(), *sections.values()]) + "\n")
