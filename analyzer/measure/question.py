"""The settings of an analysis: alphas, scorers, split, protocol and all others."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal

from analyzer.conformal.ranks import Empty
from analyzer.conformal.splits import ALL, Split
from analyzer.runs.clustering import BY_QUESTION, Clustering
from analyzer.scorers import Scorer

TENTH, HALF = Fraction(1, 10), Fraction(1, 2)
Reliability = Literal["none", "temperature"]
By = Literal["none", "subject", "label", "size"]
Mondrian = Literal["none", "subject", "label"]


@dataclass(frozen=True)
class Question:
    """One question. The defaults are those of the `exact` protocol.

    parameters  : parameters of scorers by scorer and name, such as {"raps": {"penalty": 0.1}}; others keep their defaults.
    reliability : "temperature" fits a temperature on the calibration items of each split before scoring.
    stratify    : draw splits within each subject.
    by          : also one record per subject, label or set size, under one threshold for all items.
    mondrian    : one threshold per subject or label.
    sizes       : also the rate of every set size.
    quantiles   : also quantiles of coverage over splits.
    clustering  : which items depend on each other, and so count as one unit in intervals, tests and verdicts.
    functions   : scorers that are not in `SCORERS`, by the name that `scorers` has.
    """

    alphas: tuple[Fraction, ...] = (TENTH,)
    scorers: tuple[str, ...] = ("lac", "aps")
    split: Split = ALL
    calibration_fraction: Fraction = HALF
    empty: Empty = "keep"
    protocol: str = "exact"
    parameters: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    reliability: Reliability = "none"
    stratify: bool = False
    by: By = "none"
    mondrian: Mondrian = "none"
    sizes: bool = False
    quantiles: bool = False
    clustering: Clustering = BY_QUESTION
    functions: Mapping[str, Scorer] = field(default_factory=dict)
