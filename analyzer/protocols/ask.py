"""`ask` turns options into a Question, for the command line, the Python API and the report alike.

In: options as text, or as Python values.  Out: the protocol's default question with the given options. An option that the protocol fixes
raises an error.
"""

import inspect
from collections.abc import Iterable, Mapping
from dataclasses import replace
from fractions import Fraction
from typing import Any, get_args

from analyzer.conformal.ranks import Empty
from analyzer.conformal.splits import parse_split
from analyzer.measure.question import By, Mondrian, Question, Reliability
from analyzer.protocols import Protocol, protocol_named
from analyzer.runs.clustering import parse_clustering
from analyzer.scorers import SCORERS, Scorer, check_scorers, scorer_name, scorer_parameters
from schemas.errors import UsageError
from schemas.numbers import exact_number

MAX_ALPHAS = 10_000  # more must be a mistyped step, such as 1e-9

Number = str | float | Fraction
Parameters = Mapping[str, Mapping[str, float]]
CHOICES: dict[str, tuple[str, ...]] = {
    "empty": get_args(Empty), "reliability": get_args(Reliability), "by": get_args(By), "mondrian": get_args(Mondrian),
}  # fmt: skip


def ask(  # noqa: PLR0913  # one argument per option of the command line
    *,
    alphas: Number | Iterable[Number] = (),
    scorers: str | Scorer | Iterable[str | Scorer] = (),
    parameters: Parameters | Iterable[str] = (),
    split: str | int | None = None,
    stratify: bool = False,
    calibration_fraction: Number | None = None,
    protocol: str = "exact",
    empty: str | None = None,
    reliability: str | None = None,
    by: str | None = None,
    mondrian: str | None = None,
    sizes: bool = False,
    quantiles: bool = False,
    cluster: str | Mapping[str, str] | None = None,
) -> Question:
    """Return the question that these options describe; options that are not given take the protocol's default.

    Parameters
    ----------
    alphas : one or several miscoverage levels in (0, 1), such as 0.1, "1/10" or the range "0.01:0.99:0.01".
    scorers : one or several nonconformity scores, by name or as functions of probs (item, option) that return scores of that shape, larger
        for stranger options; a function is called by its name in every result.
    parameters : parameters of scorers, as {"raps": {"penalty": 0.1}} or ["raps.penalty=0.1"].
    split : "all" (exact average over every split), a number of random splits, "seed:K" (one random split), or "file:PATH" (a file with the
        ids of the calibration items).
    stratify : draw random splits within each subject.
    calibration_fraction : share of the items that calibrate, in (0, 1).
    protocol : "exact", "ye2024" or "tong2026".
    empty : "keep" empty prediction sets, or put the most likely option into them ("top1").
    reliability : "none", or "temperature" to rescale the probabilities by a temperature fitted on the calibration items.
    by : also return coverage within each "subject", "label" or set "size"; "none" by default.
    mondrian : calibrate each "subject" or "label" separately; "none" by default.
    sizes, quantiles : also return the rate of every set size; also return quantiles of coverage over the splits.
    cluster : which items depend on each other and count as one unit in every interval, test and verdict: items that ask the same
        "question" (the default), have the same "subject" or passage ("context"), or the same value in "FILE:COLUMN", a CSV or Parquet
        file with a column id; or a mapping from ids to clusters. With "item" every item counts by itself, also one that repeats another.

    Raises
    ------
    UsageError
        For an invalid value, which the message quotes, and for an option that the protocol fixes.

    Examples
    --------
    >>> ask(alphas=[0.05, 0.1], scorers="lac", split=100).alphas
    (Fraction(1, 20), Fraction(1, 10))
    """
    chosen = protocol_named(protocol)
    functions = {scorer_name(scorer): scorer for scorer in _listed(scorers) if callable(scorer)}
    names = [scorer_name(scorer) if callable(scorer) else scorer for scorer in _listed(scorers)]
    options: dict[str, Any] = {
        "alphas": parse_alphas(str(alpha) for alpha in _listed(alphas)) or None,
        "scorers": check_scorers(names, functions) or None,
        "parameters": _parameters(parameters, functions) or None,
        "functions": {name: scorer for name, scorer in functions.items() if name not in SCORERS} or None,
        "split": None if split is None else parse_split(str(split)),
        "stratify": stratify or None,
        "calibration_fraction": None if calibration_fraction is None else _share(calibration_fraction),
        "sizes": sizes or None,
        "quantiles": quantiles or None,
        "clustering": None if cluster is None else parse_clustering(cluster),
    }
    named = {"empty": empty, "reliability": reliability, "by": by, "mondrian": mondrian}
    options |= {name: _choice(name, value) for name, value in named.items()}
    changed = {name: value for name, value in options.items() if value is not None}
    _check_open(protocol, chosen, changed)
    return replace(chosen.default, **changed)


ASKED = tuple(inspect.signature(ask).parameters)


def parse_alphas(texts: Iterable[str]) -> tuple[Fraction, ...]:
    """Return the alphas that texts name, in order, each once: `0.1`, `1/10`, or a range `0.01:0.99:0.01` with both ends.

    Alphas are exact rationals: with floats, the rank ceil((n + 1)(1 - alpha)) is wrong for about 20 % of a 0.01 grid if n + 1 is a multiple
    of 100. Raises UsageError that quotes a text that is not an alpha in (0, 1).
    """
    alphas: dict[Fraction, None] = {}
    for text in texts:
        alphas.update(dict.fromkeys(_alpha_range(text) if ":" in text else [_alpha(text)]))
    return tuple(alphas)


def _alpha(text: str) -> Fraction:
    alpha = _alpha_number(text, text)
    if not 0 < alpha < 1:
        raise UsageError(f"alpha {text!r} is outside (0, 1); it is the allowed share of misses, such as 0.1")
    return alpha


def _alpha_range(text: str) -> list[Fraction]:
    parts = text.split(":")
    if len(parts) != 3:
        raise UsageError(f"alpha {text!r} is not a range; expected first:last:step, such as 0.01:0.99:0.01")
    first, last, step = _alpha(parts[0]), _alpha(parts[1]), _alpha_number(parts[2], text)
    if step <= 0 or last < first:
        raise UsageError(f"alpha {text!r} is an empty range; expected first <= last and a step above 0")
    count = (last - first) // step + 1
    if count > MAX_ALPHAS:
        raise UsageError(f"alpha {text!r} names {count} alphas; at most {MAX_ALPHAS} are taken")
    return [first + step * index for index in range(count)]


def _alpha_number(text: str, argument: str) -> Fraction:
    try:
        return exact_number(text)
    except ValueError:
        expected = "a value in (0, 1) such as 0.1 or 1/10, or first:last:step"
        raise UsageError(f"alpha {argument[:80]!r} is not a number; expected {expected}") from None


def _listed(values: Any) -> list[Any]:
    return list(values) if isinstance(values, Iterable) and not isinstance(values, str) else [values]


def _check_open(name: str, protocol: Protocol, changed: Mapping[str, Any]) -> None:
    """Raise UsageError for an option that the protocol fixes, or a scorer that it does not have."""
    for field in protocol.fixed:
        if field in changed:
            raise UsageError(f"protocol {name} fixes its {field.replace('_', '-')}; leave --{field.replace('_', '-')} out")
    for scorer in changed.get("scorers", ()):
        if protocol.scorers and scorer not in protocol.scorers:
            raise UsageError(f"protocol {name} has no scorer {scorer!r}; it has: {', '.join(protocol.scorers)}")


def _choice(name: str, value: str | None) -> str | None:
    if value is not None and value not in CHOICES[name]:
        raise UsageError(f"{name} {value!r} is not known; expected {', '.join(CHOICES[name])}")
    return value


def _parameters(parameters: Parameters | Iterable[str], functions: Mapping[str, Scorer]) -> dict[str, dict[str, float]]:
    """Parameters by scorer and name, checked against what each scorer has."""
    if isinstance(parameters, Mapping):
        read = {scorer: dict(values) for scorer, values in parameters.items()}
    else:
        read = {}
        for text in _listed(parameters):
            scorer, parameter, value = _parameter(text)
            read.setdefault(scorer, {})[parameter] = value
    for scorer in check_scorers(read, functions):
        scorer_parameters(scorer, read[scorer], functions.get(scorer))
    return read


def _parameter(text: str) -> tuple[str, str, float]:
    name, _, value = text.partition("=")
    scorer, _, parameter = name.partition(".")
    try:
        return scorer, parameter, float(exact_number(value))
    except ValueError:
        raise UsageError(f"parameter {text[:80]!r} has no number; expected scorer.name=value, such as raps.penalty=0.1") from None


def _share(value: Number) -> Fraction:
    try:
        share = value if isinstance(value, Fraction) else exact_number(str(value))
    except ValueError as error:
        raise UsageError(f"calibration fraction {error}; expected a value in (0, 1)") from None
    if not 0 < share < 1:
        raise UsageError(f"calibration fraction {str(value)!r} is outside (0, 1)")
    return share
