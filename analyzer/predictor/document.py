"""The predictor file: sealed by a digest, and validated when it is read. `schemas/predictor.md` describes the format in prose.

In: a JSON value.  Out: a `Document`. Numbers that are not whole are stored as text, so that every language reads and hashes the same
bytes. Standard library only.
"""

import math
from collections.abc import Mapping
from fractions import Fraction
from typing import TYPE_CHECKING, Any, NamedTuple

from analyzer.predictor.values import (
    Problem,
    read_count,
    read_list,
    read_number,
    read_one_of,
    read_positive,
    read_share,
    read_table,
    read_text_value,
)
from schemas.digest import json_digest
from schemas.errors import UsageError
from schemas.json_text import parse_json, read_text

if TYPE_CHECKING:
    from pathlib import Path

FORMAT, VERSION = "hedgemark-predictor", 2
ANSWER, ASK_AGAIN, REVIEW, ABSTAIN = DECISIONS = ("answer", "ask again", "review", "abstain")
BINS = 256  # of the histogram of each statistic in LOOKS; none of them needs the correct answer
COARSE_BINS = 32  # of the histograms of each subject
LOOKS = ("top_prob", "entropy", "credible_size", "option_mass")
DECISION_PRICES = dict(zip(DECISIONS, ("answer", "ask_again", "review", "abstain"), strict=True))  # the name of each decision's price
PRICES = (*DECISION_PRICES.values(), "wrong")  # names of the prices of one question
LARGEST = 2**50  # a number of questions; larger counts are rejected
FIELDS = (
    "format", "version", "guarantee", "alpha", "confidence", "scorer", "parameters", "temperature", "empty", "letters", "option_counts",
    "thresholds", "rules", "made_on", "promised", "looks", "subjects", "test_vectors", "created", "tool", "digest",
)  # fmt: skip
FIELDS_OF = {1: tuple(name for name in FIELDS if name != "subjects"), VERSION: FIELDS}
ROUNDING = 1e-9  # of sums of shares and weights


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


class Part(NamedTuple):
    """The calibration questions of one subject.

    n, covered : how many there are, and of how many the answer's score is at most the threshold.
    share : the subject's share of the questions for which the threshold was made; None if that is the share that it has here.
    looks : (bin,) counts of the questions by statistic.
    """

    n: int
    covered: int
    share: float | None
    looks: Mapping[str, tuple[int, ...]]


class Vector(NamedTuple):
    """A test vector: one row of logits, with the set and the decision that every implementation must give for it."""

    logits: tuple[float, ...]
    subject: str | None
    letters: tuple[str, ...]
    decision: str


class Document(NamedTuple):
    """The validated content of a predictor file. `value` is the JSON value as it was read.

    parts : the calibration questions by subject; empty where there is one subject, and in files of version 1.
    """

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
    parts: Mapping[str, Part]
    value: Mapping[str, Any]

    @property
    def weighted(self) -> bool:
        """Whether the threshold was made for another mix of subjects than the calibration questions have."""
        return any(part.share is not None for part in self.parts.values())


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
        raise Problem(f"it is no predictor; expected a JSON object with format {FORMAT!r}, as analyze calibrate writes it")
    version = value.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version not in FIELDS_OF:
        newer = isinstance(version, int) and version > VERSION
        raise Problem(f"it has version {version!r}; this one reads versions 1 to {VERSION}{'; upgrade hedgemark' if newer else ''}")
    _check_names(value, version)
    if sealed(value)["digest"] != value["digest"]:
        raise Problem("it was changed after it was written: its digest does not match; write it again with analyze calibrate")
    return _document(value)


def _check_names(value: Mapping[str, Any], version: int) -> None:
    fields = FIELDS_OF[version]
    missing, unknown = [name for name in fields if name not in value], sorted(set(value) - set(fields))
    if missing or unknown:
        what = f"lacks {missing[0]!r}" if missing else f"has a field {unknown[0][:80]!r}, which version {version} does not have"
        raise Problem(f"it {what}; write it again with analyze calibrate")


def _document(value: Mapping[str, Any]) -> Document:
    letters = tuple(read_text_value(one, "letters") for one in read_list(value["letters"], "letters"))
    if len(set(letters)) != len(letters) or not 2 <= len(letters) <= 26:
        raise Problem(f"letters are {', '.join(letters)[:80]}; expected 2 to 26 different ones")
    alpha = read_share(value["alpha"], "alpha")
    confidence = None if value["confidence"] is None else read_share(value["confidence"], "confidence")
    rules = read_table(value["rules"], "rules")
    document = Document(
        alpha,
        confidence,
        read_text_value(value["scorer"], "scorer"),
        {name: read_number(one, f"parameter {name}") for name, one in read_table(value["parameters"], "parameters").items()},
        read_positive(value["temperature"], "temperature"),
        read_one_of(value["empty"], "empty", ("keep", "top1")),
        letters,
        tuple(_threshold(one) for one in read_list(value["thresholds"], "thresholds")),
        read_count(rules.get("ask_again_up_to"), "ask_again_up_to", 1),
        None if rules.get("alone") is None else _alone(read_table(rules["alone"], "alone")),
        tuple(_vector(one) for one in read_list(value["test_vectors"], "test_vectors")),
        {name: _part(one, name) for name, one in read_table(value.get("subjects", {}), "subjects").items()},
        value,
    )
    _check_thresholds(document)
    _check_described(value)
    _check_parts(document)
    return document


def _check_described(value: Mapping[str, Any]) -> None:
    """Check the fields that the prediction sets do not need, which the watch and the gate read."""
    for name, counts in read_table(value["looks"], "looks").items():
        each = [read_count(count, f"a count of {name}", 0) for count in read_list(counts, name)]
        if name not in LOOKS or len(each) != BINS or not 0 < sum(each) < LARGEST:
            raise Problem(f"looks has {name[:80]!r} with {len(each)} counts; expected {BINS} for each of {', '.join(LOOKS)}")
    for count, times in read_table(value["option_counts"], "option_counts").items():
        if not count.isascii() or not count.isdecimal() or read_count(times, "an option count", 1) > LARGEST:
            raise Problem(f"option_counts has {count[:80]!r}; expected numbers of options")
    prices = value["rules"].get("prices")
    for name in () if prices is None else PRICES:
        if read_number(read_table(prices, "prices").get(name), f"price {name}") < 0:
            raise Problem(f"price {name} is below 0")
    promised = read_table(value["promised"], "promised")
    if promised:
        for name in ("accuracy", "set_size", "alone_wrong", *(() if prices is None else ("cost_per_1000",))):
            read_number(promised.get(name), name)
        for decision in DECISIONS:
            read_number(read_table(promised.get("decisions"), "decisions").get(decision), f"the share of {decision}")
    made_on = read_table(value["made_on"], "made_on")
    for name in ("task", "prompt", *(() if made_on.get("unreliable") is None else ("unreliable",))):
        read_text_value(made_on.get(name), name)


def _check_thresholds(document: Document) -> None:
    subjects = [one.subject for one in document.thresholds]
    if not subjects or len(set(subjects)) != len(subjects) or (None in subjects and len(subjects) > 1):
        raise Problem("thresholds are none, doubled, or one for all beside others; expected one for all, or one per subject")
    for one in document.thresholds:
        due = 1 if document.weighted else math.ceil((one.n + 1) * (1 - document.alpha))
        if one.k < due or (document.confidence is None and not document.weighted and one.k != due) or one.k > one.n + 1:
            raise Problem(f"the threshold is score {one.k} of {one.n}, but alpha {document.alpha} asks for score {due}")
        if (one.value == math.inf) != (one.k == one.n + 1):
            raise Problem(f"the threshold is {one.value} as score {one.k} of {one.n}; it is inf where that is one more than there are")
        if one.k <= one.n and not one.below < one.k <= one.below + one.tied <= one.n:
            raise Problem(f"score {one.k} of {one.n} cannot have {one.below} smaller ones and {one.tied} equal ones")


def _check_parts(document: Document) -> None:
    """Check that the counts of the subjects are those of the thresholds, and that a threshold for another mix covers enough of it."""
    parts = document.parts
    if not parts:
        return
    counts = {one.subject: (one.n, one.n if one.k > one.n else one.below + one.tied) for one in document.thresholds}
    subject_counts = {name: (part.n, part.covered) for name, part in parts.items()}
    total_counts = {None: (sum(part.n for part in parts.values()), sum(part.covered for part in parts.values()))}
    if counts != (total_counts if None in counts else subject_counts):
        raise Problem("the counts of its subjects are not those of its thresholds")
    if any(part.looks.keys() != document.value["looks"].keys() for part in parts.values()):
        raise Problem("the looks of its subjects are not of the same statistics as those of all questions")
    if not document.weighted:
        return
    if (
        None in [part.share for part in parts.values()]
        or None not in counts
        or document.confidence is not None
        or document.alone is not None
    ):
        raise Problem(
            "a threshold for a mix of subjects stands alone: a share for every subject, no confidence and no limit on wrong answers"
        )
    weights = {name: float(part.share or 0) / part.n for name, part in parts.items()}
    covered = math.fsum(weights[name] * part.covered for name, part in parts.items())
    if abs(math.fsum(part.share or 0 for part in parts.values()) - 1) > ROUNDING:
        raise Problem("the shares of its subjects do not add up to 1")
    if covered < float(1 - document.alpha) * (1 + max(weights.values())) * (1 - ROUNDING):
        raise Problem(f"its threshold covers {covered:.4f} of the mix of its subjects, less than alpha {document.alpha} asks for")


def _threshold(value: Any) -> Threshold:
    table = read_table(value, "threshold")
    subject = _subject(table)
    number = math.inf if table.get("threshold") == "inf" else read_number(table.get("threshold"), "threshold")
    n = read_count(table.get("n"), "n", 0)
    return Threshold(
        subject,
        number,
        read_count(table.get("k"), "k", 1),
        n,
        read_count(table.get("below"), "below", 0),
        read_count(table.get("tied"), "tied", 0),
    )


def _alone(table: Mapping[str, Any]) -> Alone:
    threshold = math.inf if table.get("threshold") == "inf" else read_number(table.get("threshold"), "threshold of answering alone")
    return Alone(threshold, read_share(table.get("max_wrong"), "max_wrong"), read_share(table.get("confidence"), "confidence of max_wrong"))


def _part(value: Any, name: str) -> Part:
    table = read_table(value, f"subject {name[:80]!r}")
    n = read_count(table.get("n"), f"n of subject {name[:80]!r}", 1)
    covered = read_count(table.get("covered"), f"covered of subject {name[:80]!r}", 0)
    share = None if table.get("share") is None else read_positive(table["share"], f"share of subject {name[:80]!r}")
    looks = {
        look: tuple(read_count(count, f"a count of {look}", 0) for count in read_list(counts, look))
        for look, counts in read_table(table.get("looks"), "looks of a subject").items()
    }
    if covered > n or n > LARGEST or any(len(counts) != COARSE_BINS or sum(counts) != n for counts in looks.values()):
        raise Problem(f"subject {name[:80]!r} has counts that do not fit {n} questions in {COARSE_BINS} bins")
    return Part(n, covered, share, looks)


def _vector(value: Any) -> Vector:
    table = read_table(value, "test vector")
    logits = tuple(read_number(one, "logit of a test vector") for one in read_list(table.get("logits"), "logits"))
    letters = tuple(read_text_value(one, "letter") for one in read_list(table.get("set"), "set"))
    subject = _subject(table)
    return Vector(logits, subject, letters, read_one_of(table.get("decision"), "decision", DECISIONS))


def _subject(table: Mapping[str, Any]) -> str | None:
    return None if table.get("subject") is None else read_text_value(table["subject"], "subject")
