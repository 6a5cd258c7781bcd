"""A threshold per label: option j is judged against the scores of items whose answer is j, so coverage holds for every answer.

An item's set then meets as many thresholds as it has options. Each is independent of the others, so the mean set size is a sum over
labels; only its spread over splits has no short form and is left null. A label that is never the answer cannot be excluded.
"""

import math
from collections.abc import Iterator
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from analyzer.conformal.influence import threshold_pull
from analyzer.conformal.ranks import Ranks, rank_scores, threshold_rank
from analyzer.conformal.split_law import Moments, RankLaw, moments, rank_law, set_statistics
from analyzer.measure.cell import ESTIMATED, MORE, Cell, too_few
from analyzer.measure.groups import LETTERS, group_facts, memberships, on_members
from analyzer.measure.mondrian_subject import together
from analyzer.measure.question import Question
from analyzer.measure.scored import scores_of
from analyzer.runs.answer_metrics import answer_metrics
from analyzer.runs.view import RunView
from analyzer.stats.arrays import BoolArray, FloatArray, IntArray
from analyzer.stats.estimate import NOTHING, Estimate
from schemas.errors import UsageError


class Label(NamedTuple):
    """One label's calibration. `member` (item,) has it as answer; `rank` (item,) is where this option enters among their scores.

    chance : (item,) probability over splits that this option is in the set.
    """

    member: BoolArray
    n: int
    chance: FloatArray
    rank: IntArray | None = None
    item_rank: IntArray | None = None
    law: RankLaw | None = None
    coverage: Moments | None = None


def label_cells(view: RunView, scorer: str, question: Question) -> Iterator[Cell]:
    """Yield, for every alpha, the cell over all labels and one cell per label.

    Raises UsageError for drawn splits and for --empty top1, which this law does not cover.
    """
    if not question.split.exact or question.empty != "keep":
        raise UsageError("thresholds per label are measured over all splits with empty sets kept; leave --split and --empty out")
    scores = scores_of(view, view.probs, scorer, question)
    for alpha in question.alphas:
        labels = [_label(view, scores, option, question.calibration_fraction, alpha) for option in range(scores.shape[1])]
        parts = [_cell(view, scorer, alpha, labels, LETTERS.index(name)) for name in memberships(view, "label")]
        yield together(view, parts)
        yield from parts


def _label(view: RunView, scores: FloatArray, option: int, fraction: Fraction, alpha: Fraction) -> Label:
    member = view.answer == option
    exists = option < view.n_options
    n_members = int(member.sum())
    n = int(n_members * fraction)
    if not 0 < n < n_members:
        return Label(member, 0, exists.astype(np.float64))
    column = slice(option, option + 1)
    ranks = rank_scores(scores[:, column], np.zeros(view.n_items, dtype=np.int64), scores[:, column], calibration=scores[member, option])
    law = rank_law(n_members, n, threshold_rank(n, alpha))
    rank = ranks.option[0]
    among = set_statistics(Ranks(ranks.item_rank, rank[member][None], rank[member], ranks.first))
    return Label(member, n, law.at_least()[rank], rank, ranks.item_rank, law, moments(law, among))


def _cell(view: RunView, scorer: str, alpha: Fraction, labels: list[Label], option: int) -> Cell:
    label = labels[option]
    items = int(label.member.sum())
    expected = np.sum([other.chance[label.member] for other in labels], axis=0)
    covered = label.chance[label.member]
    exact = 1.0 if label.coverage is None else float(label.coverage.mean[0])
    sd = math.nan if label.coverage is None else float(label.coverage.sd[0])
    estimates = dict.fromkeys((*ESTIMATED, *MORE), NOTHING)
    estimates["accuracy"] = on_members(answer_metrics(view)["accuracy"].among(label.member), label.member)
    estimates["coverage"] = Estimate(exact, _influence(label.member, covered, [label]), share=True)
    estimates["set_size"] = Estimate(float((expected - covered).mean()) + exact, _influence(label.member, expected, labels))
    facts = group_facts(items) | {"coverage_sd": sd, "parameters": ""}
    note = too_few(label.n, alpha) if label.law is None or label.law.first == items else None
    return Cell(view, scorer, alpha, label.n, estimates, facts, note, LETTERS[option])


def _influence(member: BoolArray, expected: FloatArray, judged_by: list[Label]) -> FloatArray:
    """Influence, (item,), on the mean over members: their own sets, and the pull of every label's calibration items on them."""
    influence = np.zeros(member.size)
    influence[member] = expected - expected.mean()
    for label in judged_by:
        if label.law is None or label.rank is None or label.item_rank is None:
            continue
        entering = np.bincount(label.rank[member], minlength=label.item_rank.size + 2)
        jumps = entering[label.law.first + 1 : label.law.first + 1 + label.law.weights.size].astype(np.float64)
        pull = threshold_pull(label.law, label.item_rank, jumps[None])[0]
        influence[label.member] -= pull - pull.mean()
    return np.asarray(influence * (member.size / member.sum()))
