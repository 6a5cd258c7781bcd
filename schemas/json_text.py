"""Read JSON from outside strictly: whatever two JSON readers could interpret differently is an error.

In: a file or a text.  Out: plain Python values; `json_bytes` goes the other way. Every failure is a ValueError with a sentence,
to which callers add the file's name.
"""

import json
import math
import re
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # pathlib takes a tenth of the start of the predictor's runtime
    from pathlib import Path

_HALF_PAIR = re.compile("[\ud800-\udfff]")  # json joins the two halves of a surrogate pair; a half that is left is not a character

BINARY = {  # first bytes of what is often given in place of UTF-8 text
    b"\x1f\x8b": "it is packed with gzip; unpack it first",
    b"PK\x03\x04": "it is a zip file or a spreadsheet; unpack it, or save it as text, first",
    b"\xff\xfe": "it is UTF-16; save it as UTF-8",
    b"\xfe\xff": "it is UTF-16; save it as UTF-8",
}


def read_text(path: "Path | str") -> str:
    """Return the text of a UTF-8 file without its byte-order mark. Raises ValueError if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return file.read().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        if what_it_is := next((what for begins, what in BINARY.items() if error.object.startswith(begins)), ""):
            raise ValueError(what_it_is) from error
        line = error.object.count(b"\n", 0, error.start) + 1
        raise ValueError(f"it is not UTF-8 text: line {line} has byte {error.object[error.start]:#04x}; save it as UTF-8") from error
    except OSError as error:
        raise ValueError(error.strerror or str(error)) from error


def json_bytes(value: Any) -> bytes:
    """Return a value as UTF-8 JSON without spaces, the form of the documents in a store. Raises ValueError for NaN and Infinity."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False).encode()


def parse_json(text: str, *, finite: bool = False) -> Any:
    """Return the value of a JSON text. Raises ValueError for broken or too deeply nested JSON, repeated keys, or half a surrogate pair.

    finite : also refuse NaN and Infinity, which Python writes although they are not JSON, and numbers too large for a float like 1e999.
    """
    number = _finite if finite else float
    try:
        value = json.loads(text, object_pairs_hook=_object, parse_float=number, parse_constant=number)
    except RecursionError as error:
        raise ValueError("it is nested too deeply") from error
    if "\\u" in text and (match := _HALF_PAIR.search(json.dumps(value, ensure_ascii=False))):
        raise ValueError(f"it holds half a surrogate pair, \\u{ord(match[0]):04x}, which is no character")
    return value


def parse_json_lines(text: str) -> Iterator[tuple[int, Any]]:
    """Yield (line number from 1, value) of each line that is not blank; lines end at line feeds only.

    `str.splitlines` also splits at U+2028, U+2029 and U+0085, which JSON allows inside a string.
    """
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                yield number, parse_json(line)
            except ValueError as error:
                raise ValueError(f"line {number}: {error}") from error


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text[:40]} is not a number that JSON and a float can hold")
    return number


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        keys = [key for key, _ in pairs]
        repeated = next(key for key in keys if keys.count(key) > 1)
        raise ValueError(f"key {repeated[:80]!r} is given twice")
    return value
