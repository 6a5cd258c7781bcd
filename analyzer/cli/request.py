"""From parsed options to a question about some runs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

from analyzer.conformal.splits import parse_split
from analyzer.measure.alphas import parse_alphas
from analyzer.measure.question import Question
from analyzer.protocols import rules
from analyzer.runs.fields import FIELDS
from analyzer.scorers import check_scorers, scorer_parameters
from schemas.errors import UsageError


@dataclass(frozen=True)
class Request:
    """What a command line asks: which runs of which store, which question, printed how."""

    store_url: str
    at: str | None
    wanted: Mapping[str, Sequence[str]]
    question: Question
    form: str


def request(options: Mapping[str, Any]) -> Request:
    """Return what parsed options ask. Raises UsageError quoting the value that cannot be meant."""
    wanted = {field: options[field] for field in FIELDS}
    return Request(options["store_url"], options["at"], wanted, ask(options), options["form"])


def ask(options: Mapping[str, Any]) -> Question:
    """Return the question: the protocol's own, changed where an option was given and the protocol leaves it open."""
    protocol = rules(options["protocol"])
    given: dict[str, Any] = {
        "alphas": parse_alphas(options["alphas"]) or None,
        "scorers": check_scorers(options["scorers"]) or None,
        "split": parse_split(options["split"]) if options["split"] is not None else None,
        "calibration_fraction": _fraction(options["calibration_fraction"]) if options["calibration_fraction"] is not None else None,
        "parameters": _parameters(options["parameters"]) or None,
        **{name: options.get(name) or None for name in ("empty", "reliability", "stratify", "by", "mondrian", "sizes", "quantiles")},
    }
    changed = {name: value for name, value in given.items() if value is not None}
    for name in protocol.fixed:
        if name in changed:
            raise UsageError(f"protocol {options['protocol']} fixes its {name.replace('_', '-')}; leave --{name.replace('_', '-')} out")
    for scorer in changed.get("scorers", ()):
        if protocol.scorers and scorer not in protocol.scorers:
            raise UsageError(f"protocol {options['protocol']} has no scorer {scorer!r}; it has: {', '.join(protocol.scorers)}")
    return replace(protocol.default, **changed)


def _parameters(texts: Sequence[str]) -> dict[str, dict[str, float]]:
    """Parameters by scorer and name, from `raps.penalty=0.1`."""
    found: dict[str, dict[str, float]] = {}
    for text in texts:
        name, _, value = text.partition("=")
        scorer, _, parameter = name.partition(".")
        check_scorers([scorer])
        try:
            found.setdefault(scorer, {})[parameter] = float(value)
        except ValueError:
            raise UsageError(f"parameter {text!r} has no number; expected scorer.name=value, such as raps.penalty=0.1") from None
        scorer_parameters(scorer, found[scorer])
    return found


def _fraction(text: str) -> Fraction:
    try:
        fraction = Fraction(text)
    except (ValueError, ZeroDivisionError):
        raise UsageError(f"calibration fraction {text!r} is not a number; expected a value in (0, 1)") from None
    if not 0 < fraction < 1:
        raise UsageError(f"calibration fraction {text!r} is outside (0, 1)")
    return fraction
