"""An extension of Sphinx that reads the docstrings of this project, in which whole sentences stand where numpydoc expects a type.

`name : what it is, in words that may go on` becomes the name and an indented description, the text of the section Returns becomes a
description without a type, and `Source : paper` becomes the section References.
"""

import re
from typing import Any

UNDERLINE = re.compile(r"-{3,}$")
DESCRIBED = re.compile(r"([*\w][*\w, ]*?) +: (.*)$")


def described(lines: list[str]) -> list[str]:
    """Return a docstring's lines as Sphinx's own reader of sections, napoleon, takes them."""
    section, done = "", []
    for line, following in zip(lines, [*lines[1:], ""], strict=True):
        match = DESCRIBED.match(line)
        if UNDERLINE.match(following):
            section = line
        if match and match[1] == "Source":
            section = "Source"
            done += ["References", "----------", match[2]]
        elif section == "Returns":
            done += ["", "", ":returns:"] if line == "Returns" else [] if UNDERLINE.match(line) else [f"    {line}".rstrip()]
        elif match:
            done += [match[1], f"    {match[2]}"]
        elif not section and line[:1].strip() and done and done[-1].startswith("    "):  # a sentence right after the last description
            done += ["", line]
        else:
            done.append(line.strip() if section == "Source" else line)
    return done


def setup(app: Any) -> dict[str, bool]:
    """Read docstrings before napoleon does, whose priority is 500."""
    app.connect("autodoc-process-docstring", _replace, priority=400)
    return {"parallel_read_safe": True}


def _replace(_app: Any, _kind: str, _name: str, _object: Any, _options: Any, lines: list[str]) -> None:
    lines[:] = described(lines)
