"""The predictor file: sealed by a digest, and validated when it is read. `schemas/predictor.md` describes the format in prose.

In: a JSON value.  Out: a `Document`. Numbers that are not whole are stored as text, so that every language reads and hashes the same
bytes. Standard library only.
"""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

from schemas.digest import json_digest
from schemas.errors import UsageError
from schemas.json_text import parse_json, read_text
from schemas.numbers import exact_number

if TYPE_CHECKING:
    from pathlib import Path

FORMAT, VERSION = "hedgemark-predictor", 1
ANSWER, ASK_AGAIN, REVIEW, ABSTAIN = DECISIONS = ("answer", "ask again", "review", "abstain")
BINS = 256  # of the histogram of each statistic in LOOKS; none of them needs the correct answer
LOOKS = ("top_prob", "entropy", "credible_size", "option_mass")
DECISION_PRICES = dict(zip(DECISIONS, ("answer", "ask_again", "review", "abstain"), strict=True))  # the name of each decision's price
PRICES = (*DECISION_PRICES.values(), "wrong")  # names of the prices of one question
LARGEST = 2**50  # a number of questions; larger counts are rejected
FIELDS = (
    "format", "version", "guarantee", "alpha", "confidence", "scorer", "parameters", "temperature", "empty", "letters", "option_counts",
    "thresholds", "rules", "made_on", "promised", "looks", "test_vectors", "created", "tool", "digest",
)  # fmt: skip


class Threshold(NamedTuple):
    """The k-th smallest of n calibration scores; +inf where k is n + 1.

    subject : the subject whose questions it applies to; None for all.
    below, tied : numbers of calibration scores that are smaller than the threshold, and equal to it.
    """

    subject: str | None
    value: float
    k: int
    n: int
    below: int
    tied: int


class Alone(NamedTuple):
    """The rule for answers without review: a question is answered if its largest probability is at least `threshold`.

    With this confidence, P(wrong | answered) <= max_wrong.
    """

    threshold: float
    max_wrong: Fraction
    confidence: Fraction


class Vector(NamedTuple):
    """A test vector: one row of logits, with the set and the decision that every implementation must give for it."""

    logits: tuple[float, ...]
    subject: str | None
    letters: tuple[str, ...]
    decision: str


class Document(NamedTuple):
    """The validated content of a predictor file. `value` is the JSON value as it was read."""

    alpha: Fraction
    confidence: Fraction | None
    scorer: str
    parameters: Mapping[str, float]
    temperature: float
    empty: str
    letters: tuple[str, ...]
    thresholds: tuple[Threshold, ...]
    ask_again_up_to: int
    alone: Alone | None
    vectors: tuple[Vector, ...]
    value: Mapping[str, Any]


class _Problem(ValueError):
    """What is wrong with a value, phrased to follow the file's name in an error message."""


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the value with a digest over all its other fields."""
    content = {name: one for name, one in value.items() if name != "digest"}
    return {**content, "digest": json_digest(content)}


def read_document(path: "Path | str") -> Document:
    """Return the predictor in a file. Raises UsageError if the file cannot be read, was changed after writing, or is no predictor."""
    try:
        return parse_document(parse_json(read_text(path), finite=True))
    except ValueError as error:
        raise UsageError(f"predictor {path}: {error}") from error


def parse_document(value: Any) -> Document:
    """Return the predictor that a JSON value describes. Raises ValueError with a message that follows the file's name."""
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        raise _Problem(f"it is no predictor; expected a JSON object with format {FORMAT!r}, as analyze calibrate writes it")
    version = value.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version != VERSION:
        newer = isinstance(version, int) and version > VERSION
        raise _Problem(f"it has version {version!r}; this one reads version {VERSION}{'; upgrade hedgemark' if newer else ''}")
    _check_names(value)
    if sealed(value)["digest"] != value["digest"]:
        raise _Problem("it was changed after it was written: its digest does not match; write it again with analyze calibrate")
    return _document(value)


def _check_names(value: Mapping[str, Any]) -> None:
    missing, unknown = [name for name in FIELDS if name not in value], sorted(set(value) - set(FIELDS))
    if missing or unknown:
        what = f"lacks {missing[0]!r}" if missing else f"has a field {unknown[0][:80]!r}, which version {VERSION} does not have"
        raise _Problem(f"it {what}; write it again with analyze calibrate")


def _document(value: Mapping[str, Any]) -> Document:
    letters = tuple(_text(one, "letters") for one in _list(value["letters"], "letters"))
    if len(set(letters)) != len(letters) or not 2 <= len(letters) <= 26:
        raise _Problem(f"letters are {', '.join(letters)[:80]}; expected 2 to 26 different ones")
    alpha = _share(value["alpha"], "alpha")
    confidence = None if value["confidence"] is None else _share(value["confidence"], "confidence")
    rules = _table(value["rules"], "rules")
    document = Document(
        alpha,
        confidence,
        _text(value["scorer"], "scorer"),
        {name: _number(one, f"parameter {name}") for name, one in _table(value["parameters"], "parameters").items()},
        _positive(value["temperature"], "temperature"),
        _one_of(value["empty"], "empty", ("keep", "top1")),
        letters,
        tuple(_threshold(one) for one in _list(value["thresholds"], "thresholds")),
        _count(rules.get("ask_again_up_to"), "ask_again_up_to", 1),
        None if rules.get("alone") is None else _alone(_table(rules["alone"], "alone")),
        tuple(_vector(one) for one in _list(value["test_vectors"], "test_vectors")),
        value,
    )
    _check_thresholds(document)
    _check_described(value)
    return document


def _check_described(value: Mapping[str, Any]) -> None:
    """Check the fields that the prediction sets do not need, which the watch and the gate read."""
    for name, counts in _table(value["looks"], "looks").items():
        each = [_count(count, f"a count of {name}", 0) for count in _list(counts, name)]
        if name not in LOOKS or len(each) != BINS or not 0 < sum(each) < LARGEST:
            raise _Problem(f"looks has {name[:80]!r} with {len(each)} counts; expected {BINS} for each of {', '.join(LOOKS)}")
    for count, times in _table(value["option_counts"], "option_counts").items():
        if not count.isascii() or not count.isdecimal() or _count(times, "an option count", 1) > LARGEST:
            raise _Problem(f"option_counts has {count[:80]!r}; expected numbers of options")
    prices = value["rules"].get("prices")
    for name in () if prices is None else PRICES:
        if _number(_table(prices, "prices").get(name), f"price {name}") < 0:
            raise _Problem(f"price {name} is below 0")
    promised = _table(value["promised"], "promised")
    if promised:
        for name in ("accuracy", "set_size", "alone_wrong", *(() if prices is None else ("cost_per_1000",))):
            _number(promised.get(name), name)
        for decision in DECISIONS:
            _number(_table(promised.get("decisions"), "decisions").get(decision), f"the share of {decision}")
    made_on = _table(value["made_on"], "made_on")
    for name in ("task", "prompt", *(() if made_on.get("unreliable") is None else ("unreliable",))):
        _text(made_on.get(name), name)


def _check_thresholds(document: Document) -> None:
    subjects = [one.subject for one in document.thresholds]
    if not subjects or len(set(subjects)) != len(subjects) or (None in subjects and len(subjects) > 1):
        raise _Problem("thresholds are none, doubled, or one for all beside others; expected one for all, or one per subject")
    for one in document.thresholds:
        due = math.ceil((one.n + 1) * (1 - document.alpha))
        if one.k < due or (document.confidence is None and one.k != due) or one.k > one.n + 1:
            raise _Problem(f"the threshold is score {one.k} of {one.n}, but alpha {document.alpha} asks for score {due}")
        if (one.value == math.inf) != (one.k == one.n + 1):
            raise _Problem(f"the threshold is {one.value} as score {one.k} of {one.n}; it is inf where that is one more than there are")
        if one.k <= one.n and not one.below < one.k <= one.below + one.tied <= one.n:
            raise _Problem(f"score {one.k} of {one.n} cannot have {one.below} smaller ones and {one.tied} equal ones")


def _threshold(value: Any) -> Threshold:
    table = _table(value, "threshold")
    subject = _subject(table)
    number = math.inf if table.get("threshold") == "inf" else _number(table.get("threshold"), "threshold")
    n = _count(table.get("n"), "n", 0)
    return Threshold(
        subject, number, _count(table.get("k"), "k", 1), n, _count(table.get("below"), "below", 0), _count(table.get("tied"), "tied", 0)
    )


def _alone(table: Mapping[str, Any]) -> Alone:
    threshold = math.inf if table.get("threshold") == "inf" else _number(table.get("threshold"), "threshold of answering alone")
    return Alone(threshold, _share(table.get("max_wrong"), "max_wrong"), _share(table.get("confidence"), "confidence of max_wrong"))


def _vector(value: Any) -> Vector:
    table = _table(value, "test vector")
    logits = tuple(_number(one, "logit of a test vector") for one in _list(table.get("logits"), "logits"))
    letters = tuple(_text(one, "letter") for one in _list(table.get("set"), "set"))
    subject = _subject(table)
    return Vector(logits, subject, letters, _one_of(table.get("decision"), "decision", DECISIONS))


def _subject(table: Mapping[str, Any]) -> str | None:
    return None if table.get("subject") is None else _text(table["subject"], "subject")


def _number(value: Any, name: str) -> float:
    try:
        number = float(value) if isinstance(value, str) else math.nan
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise _Problem(f'{name} is {value!r}; expected a finite number as text, such as "0.75"')
    return number


def _positive(value: Any, name: str) -> float:
    number = _number(value, name)
    if not number > 0:
        raise _Problem(f"{name} is {value!r}; expected a number above 0")
    return number


def _share(value: Any, name: str) -> Fraction:
    try:
        share = exact_number(value) if isinstance(value, str) else Fraction(0)
    except ValueError:
        share = Fraction(0)
    if not 0 < share < 1:
        raise _Problem(f'{name} is {value!r}; expected a value in (0, 1) as text, such as "1/10"')
    return share


def _count(value: Any, name: str, least: int) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise _Problem(f"{name} is {value!r}; expected a whole number of {least} or more")
    return value


def _text(value: Any, name: str) -> str:
    if not isinstance(value, str):
        raise _Problem(f"{name} is {value!r}; expected text")
    return value


def _one_of(value: Any, name: str, choices: tuple[str, ...]) -> str:
    if value not in choices:
        raise _Problem(f"{name} is {value!r}; expected {', '.join(choices)}")
    return str(value)


def _list(value: Any, name: str) -> list[Any]:
    if not isinstance(value, list):
        raise _Problem(f"{name} is {value!r:.80}; expected a list")
    return value


def _table(value: Any, name: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Problem(f"{name} is {value!r:.80}; expected an object")
    return value
