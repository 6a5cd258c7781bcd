"""Levels: how much a method compresses, as text and as numbers.

    -              no level (dense models, and checkpoints whose files state none)
    w4a16-g128     weight bits, activation bits, group size of the weights; `w4a16-channel`: one scale per row
    w8a8           weights per row, activations per token
    0.5            fraction removed (sparsity, or structure)
    2:4            2 of every 4 weights kept (n:m)
    w4a4kv4        another way to write w4a4+kv-int4 (kv8: int8; kv16: the cache as it is)
    w4a4+kv-int8   a level whose model also keeps its cached keys and values in a format; `kv-int8` where there is no other level
    Q4_K_M         any other name of a checkpoint's or imported run's compression, such as int4, FP8_BLOCK or exl3-4.25bpw
    0:0.5:0.1      in a request only: the fractions from the first to the second in steps of the third, both ends included

In: text.  Out: a `Level` with a canonical `text`, so that `.50` and `0.5` are the same level.
"""

import math
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

from schemas.errors import UsageError
from schemas.numbers import exact_number, is_number

NO_LEVEL = "-"
FULL_BITS = 16
MOST_IN_RANGE = 1000  # levels; a longer range must be a mistyped step
MOST_CHARACTERS = 64

CACHE_BITS = {"fp8": 8, "int8": 8, "int4": 4, "nvfp4": 4}  # formats of cached keys and values

_CACHE = re.compile(rf"(?:(.*)\+)?kv-({'|'.join(CACHE_BITS)})", re.IGNORECASE)
_QUANTIZED = re.compile(r"w(\d{1,3})a(\d{1,3})(?:-(?:g(\d{1,9})|channel))?", re.IGNORECASE | re.ASCII)
_WITH_CACHE_BITS = re.compile(r"(w\d{1,3}a\d{1,3})kv(\d{1,3})(-g\d{1,9}|-channel)?", re.IGNORECASE | re.ASCII)
_CACHE_OF_BITS = {4: "int4", 8: "int8", FULL_BITS: ""}
_PATTERN = re.compile(r"(\d{1,6}):(\d{1,6})", re.ASCII)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+-]*")
_NO_NAME = re.compile(r"[\d.+-]*|[+-]?[\d._]+e[+-]?[\d.]*|w\d[wag\d-]*|nan|inf|infinity|none|null|na|true|false", re.IGNORECASE)

Kind = Literal["none", "quantization", "sparsity", "pattern", "name"]

# Bits per weight of a GGUF file by its type: exact if all blocks have the same layout; for mixed layouts, those of a Llama-3 8B file
# (`llama-quantize --help` states the sizes). They only serve to order levels.
GGUF_BITS = {
    "IQ1_S": 1.56, "IQ1_M": 1.75, "TQ1_0": 1.69, "IQ2_XXS": 2.06, "TQ2_0": 2.06, "IQ2_XS": 2.31, "IQ2_S": 2.5, "IQ2_M": 2.7,
    "IQ3_XXS": 3.06, "Q2_K": 3.17, "Q2_K_S": 3.0, "IQ3_XS": 3.3, "IQ3_S": 3.44, "IQ3_M": 3.66, "Q3_K_S": 3.65, "Q3_K_M": 4.0, "Q3_K": 4.0,
    "Q3_K_L": 4.31, "IQ4_XS": 4.25, "MXFP4": 4.25, "IQ4_NL": 4.5, "Q4_0": 4.64, "Q4_K_S": 4.67, "Q4_K_M": 4.9, "Q4_K": 4.9, "Q4_1": 5.14,
    "Q5_0": 5.57, "Q5_K_S": 5.57, "Q5_K_M": 5.7, "Q5_K": 5.7, "Q5_1": 6.05, "Q6_K": 6.56, "Q8_0": 8.5,
}  # fmt: skip
_STATED_BITS = re.compile(r"(\d{1,2}(?:\.\d{1,4})?)-?(?:bpw|bits?)(?![a-z])", re.IGNORECASE)
_TYPE_BITS = re.compile(r"(?<![a-z])(?:u?int|[mn]?x?v?fp|bfloat|float|bf|nf|f|w)(\d{1,2})(?!\d)", re.IGNORECASE)


@dataclass(frozen=True)
class Level:
    """One parsed level; fields that its kind does not use keep their defaults. `kept` weights of every `of` remain in a pattern."""

    text: str
    kind: Kind
    weight_bits: int = FULL_BITS
    activation_bits: int = FULL_BITS
    group_size: int | None = None
    fraction: float = 0.0
    kept: int = 0
    of: int = 0
    bits: float | None = None  # per weight, if a name states or implies it
    cache: str = ""  # format of cached keys and values, "" if they are not rounded

    @property
    def strength(self) -> float:
        """Position along a sweep, larger for stronger compression: fraction removed, or bits removed from weights, activations and cache.

        +inf for a level without a position: a name whose bits are unknown, or a fraction beside the bits of a cache.
        """
        cache_bits = FULL_BITS - CACHE_BITS[self.cache] if self.cache else 0
        if self.kind == "quantization":
            return float(2 * FULL_BITS - self.weight_bits - self.activation_bits + cache_bits)
        if self.kind == "name":
            return math.inf if self.bits is None else FULL_BITS - self.bits + cache_bits
        return self.fraction if not self.cache else cache_bits if self.kind == "none" else math.inf

    @property
    def without_cache(self) -> "Level":
        """The same level of the weights and activations, with a cache that is not rounded."""
        return parse_level(self.text[: -len(f"+kv-{self.cache}")]) if self.cache else self

    def with_cache(self, name: str) -> "Level":
        """Return this level with cached keys and values in a format. Raises UsageError if it has a format already."""
        if self.cache:
            raise UsageError(f"level {self.text!r} states the format of cached keys and values already; leave --kv {name} out")
        return replace(self, text=f"kv-{name}" if self.text == NO_LEVEL else f"{self.text}+kv-{name}", cache=name)


def parse_level(text: str) -> Level:
    """Return the level that a text names. Raises UsageError, which lists the accepted forms."""
    text = _with_cache_by_name(text.strip())
    if text in ("", NO_LEVEL):
        return Level(NO_LEVEL, "none")
    if match := _CACHE.fullmatch(text):
        return parse_level(match[1] or "").with_cache(match[2].lower())
    if match := _QUANTIZED.fullmatch(text):
        return _quantization(text.lower(), match)
    if match := _PATTERN.fullmatch(text):
        kept, of = int(match[1]), int(match[2])
        if not 0 < kept < of:
            raise UsageError(f"level {text!r}: n:m keeps n of m weights, so 0 < n < m")
        return Level(f"{kept}:{of}", "pattern", fraction=1 - kept / of, kept=kept, of=of)
    if is_number(text):
        return _fraction(text)
    if len(text) > MOST_CHARACTERS or _NO_NAME.fullmatch(text) or not _NAME.fullmatch(text):
        raise UsageError(
            f"level {text[:MOST_CHARACTERS]!r} is not valid; examples: w4a16-g128, w8a8, 0.5, 2:4, or a name such as int4 or Q4_K_M "
            f"(up to {MOST_CHARACTERS} letters, digits and ._+-)"
        )
    return Level(text, "name", bits=_bits(text))


def parse_levels(texts: Iterable[str]) -> list[Level]:
    """Return the levels that texts name, in order, with ranges expanded and repeats dropped. Raises what `parse_level` raises."""
    single = (level for text in texts for level in (_range(text) if text.count(":") == 2 else [text]))
    return list(dict.fromkeys(parse_level(level) for level in single))


def method_and_level(method: str, level: str) -> str:
    """Return a method and the text of its level as people read them, such as `wanda 0.5`; the method alone if it has no level."""
    return method if level == NO_LEVEL else f"{method} {level}"


def _bits(name: str) -> float | None:
    """Return the bits per weight that a name states (exl3-4.25bpw, 4bit) or implies (Q4_K_M, int4, FP8_BLOCK), else None."""
    stated, plain = _STATED_BITS.search(name), name.upper().removeprefix("UD-")
    if stated or plain in GGUF_BITS:
        return float(stated[1]) if stated else GGUF_BITS[plain]
    implied = _TYPE_BITS.search(name.replace("_", "-"))
    return float(implied[1]) if implied else None


def _with_cache_by_name(text: str) -> str:
    """Return a level such as w4a4kv4 with the format of its cache by name: w4a4+kv-int4; any other text as it is."""
    match = _WITH_CACHE_BITS.fullmatch(text)
    if match is None:
        return text
    weights, bits = match[1] + (match[3] or ""), int(match[2])
    if bits not in _CACHE_OF_BITS:
        bits_known = ", ".join(map(str, _CACHE_OF_BITS))
        raise UsageError(f"level {text!r}: cached keys and values have {bits_known} bits, or --kv names their format")
    return f"{weights}+kv-{_CACHE_OF_BITS[bits]}" if _CACHE_OF_BITS[bits] else weights


def _range(text: str) -> list[str]:
    try:
        start, stop, step = map(exact_number, text.split(":"))
    except ValueError:
        raise UsageError(f"level {text!r} is not a range; a range is start:stop:step, such as 0:0.5:0.1") from None
    if not (0 <= start <= stop < 1 and step > 0 and (stop - start) / step < MOST_IN_RANGE):
        raise UsageError(f"level {text!r}: a range start:stop:step has 0 <= start <= stop < 1 and a step above 0, such as 0:0.5:0.1")
    return [str(start + number * step) for number in range(int((stop - start) / step) + 1)]


def _quantization(text: str, match: re.Match[str]) -> Level:
    weight_bits, activation_bits = int(match[1]), int(match[2])
    if not 2 <= weight_bits <= FULL_BITS or not 2 <= activation_bits <= FULL_BITS:
        raise UsageError(f"level {text!r}: bits must be from 2 to {FULL_BITS}")
    group_size = int(match[3]) if match[3] else None
    if group_size == 0:
        raise UsageError(f"level {text!r}: a group holds at least one weight")
    return Level(text.removesuffix("-channel"), "quantization", weight_bits, activation_bits, group_size)


def _fraction(text: str) -> Level:
    try:
        fraction = exact_number(text)
    except ValueError as error:
        raise UsageError(f"level {error}") from None
    if not 0 <= fraction < 1:
        raise UsageError(f"level {text!r}: a fraction removed must be in [0, 1)")
    short = f"{float(fraction):g}"  # rounded first, so that exactly the fraction in the run key is removed: 1/3 means 0.333333
    if float(short) == 1:
        raise UsageError(f"level {text!r}: a fraction removed must be in [0, 1) when rounded to six digits")
    return Level(short, "sparsity", fraction=float(short))
