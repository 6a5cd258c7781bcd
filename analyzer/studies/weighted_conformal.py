"""`analyze transfer --subject-mix`: thresholds for another mix of subjects than the items have (weighted conformal prediction).

A calibration item's weight is its subject's share in the new mix over its share among the items, and the test item adds its weight at
score +inf. Then coverage holds under the new mix (Tibshirani et al. 2019, arXiv:1904.06019, corollary 1). There is no closed law over
splits with weights, so splits are drawn; intervals come from a jackknife over groups of items.
"""

import math
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Annotated, NamedTuple

import numpy as np
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict

from analyzer.compare.two_axis_verdict import limit_side
from analyzer.conformal.splits import calibration_size, draw_splits
from analyzer.measure.cell import Cell
from analyzer.measure.question import Question
from analyzer.measure.records import Record, identity, interval_fields, provenance
from analyzer.measure.scored import scores_of
from analyzer.measure.unreliable import run_reasons
from analyzer.runs.answer_metrics import dependence
from analyzer.runs.loading import Runs
from analyzer.runs.view import RunView
from analyzer.stats.arrays import BoolArray, FloatArray, IntArray
from analyzer.stats.clusters import kish_items
from analyzer.stats.combined import difference
from analyzer.stats.estimate import Estimate
from analyzer.studies.carry_threshold import check_exact
from analyzer.studies.threshold_transfer import COVERAGE_TOLERANCE, FINDINGS
from schemas.errors import UsageError
from schemas.numbers import check_tolerance
from schemas.toml_file import as_model, number_from_zero, read_toml

N_SPLITS, N_GROUPS, SEED = 50, 25, 0
ROUNDING = 1e-12  # sums of weights are compared with a bound that may equal them
FIGURES = ("coverage", "set_size", "unweighted_coverage", "unweighted_set_size")
SHARES = ("coverage", "unweighted_coverage")


def _some_share(subjects: Mapping[str, float]) -> Mapping[str, float]:
    if not 0 < sum(subjects.values()) < math.inf:
        raise ValueError("no subject has a share above 0; expected shares such as law = 0.5")
    return subjects


class MixFile(BaseModel):
    """The content of a file with a mix of subjects."""

    model_config = ConfigDict(extra="forbid")

    subjects: Annotated[Mapping[str, Annotated[float, BeforeValidator(number_from_zero)]], AfterValidator(_some_share)]


class WeightedScores(NamedTuple):
    """Scores of a run with the weights of its subjects.

    scores (item, option), of_answer (item,), subject (item,), weight (subject,); masks (split, item) is true where an item calibrates;
    cluster (item,) is the number of each item's cluster, its own if items are independent."""

    scores: FloatArray
    of_answer: FloatArray
    subject: IntArray
    weight: FloatArray
    masks: BoolArray
    cluster: IntArray

    def keep(self, chosen: BoolArray) -> "WeightedScores":
        """Return the chosen items, (item,) bool."""
        of_items = self.scores[chosen], self.of_answer[chosen], self.subject[chosen]
        return WeightedScores(*of_items, self.weight, self.masks[:, chosen], self.cluster[chosen])


def read_mix(path: Path) -> Mapping[str, float]:
    """Return the share of each subject from a TOML file with a table [subjects], such as `law = 0.5`; shares need not add up to 1.

    Raises UsageError that names every problem: a share that is not a number of 0 or more, or none above 0.
    """
    return as_model(MixFile, read_toml(path, "mix"), f"mix {path}").subjects


def weighted(runs: Runs, question: Question, mix: Mapping[str, float], tolerance: float = COVERAGE_TOLERANCE) -> list[Record]:
    """Return one record per run, scorer and alpha: coverage and set size under the mix, with weighted and with unweighted thresholds.

    Raises UsageError for a subject that the items do not have.
    """
    check_exact(question, "a mix of subjects")
    check_tolerance(tolerance, "the tolerance of coverage")
    records = []
    for view in runs.clustered(question.clustering).views():
        view_of_mix, weight = under_mix(view, mix)
        for scorer in question.scorers:
            scored = _scored(view_of_mix, scorer, question, weight)
            records += [_record(_cell(view_of_mix, scorer, alpha, scored), question, tolerance) for alpha in question.alphas]
    return records


def figures(scored: WeightedScores, alpha: float) -> FloatArray:
    """Return (figure,) the values of FIGURES, means over the drawn splits; thresholds without weights give the last two."""
    order = np.argsort(scored.of_answer, kind="stable")
    own_weight, nobody = scored.weight[scored.subject], np.ones_like(scored.weight)
    totals = np.zeros(len(FIGURES))
    for calibrates in scored.masks:
        tested = ~calibrates
        share = own_weight[tested] / own_weight[tested].sum()
        for first_figure, weight in ((0, scored.weight), (2, nobody)):
            threshold = _thresholds(scored, order, calibrates, weight, alpha)[scored.subject[tested]]
            totals[first_figure] += share @ (scored.of_answer[tested] <= threshold)
            totals[first_figure + 1] += share @ (scored.scores[tested] <= threshold[:, None]).sum(axis=1)
    return totals / len(scored.masks)


def weighted_ranks(weighs: FloatArray, weight: FloatArray, alpha: float) -> IntArray:
    """Return the index of the threshold among the calibration scores in ascending order, for test items of each given weight.

    weighs : (item,) cumulative weights of the calibration items in that order. An index beyond them stands for +inf.
    """
    return np.asarray(np.searchsorted(weighs, (1 - alpha) * (weighs[-1] + weight) * (1 - ROUNDING)))


def under_mix(view: RunView, mix: Mapping[str, float]) -> tuple[RunView, FloatArray]:
    """Return the items of subjects that the mix has, and each subject's weight: its share in the mix over its share among those items.

    Raises UsageError for a subject that the items do not have.
    """
    subject = view.items.subject[view.position]
    names = view.items.subjects
    there = [name for number, name in enumerate(names) if (subject == number).any()]
    if missing := [name for name, share in mix.items() if share and name not in there]:
        raise UsageError(f"run {view.row['name']} has no items of subject {missing[0]!r}; it has: {', '.join(there)}")
    shares = np.array([mix.get(name, 0.0) for name in names])
    view_of_mix = view.keep(shares[subject] > 0)
    counts = np.bincount(view_of_mix.items.subject[view_of_mix.position], minlength=len(names))
    weight = np.divide(shares / shares.sum(), counts / counts.sum(), out=np.zeros(len(names)), where=counts > 0)
    return view_of_mix, weight


def _thresholds(scored: WeightedScores, order: IntArray, calibrates: BoolArray, weight: FloatArray, alpha: float) -> FloatArray:
    """Return (subject,) the threshold for items of that subject: the smallest score with enough calibration weight below it, else +inf."""
    used = order[calibrates[order]]
    weighs = weight[scored.subject[used]].cumsum()
    return np.asarray(np.append(scored.of_answer[used], np.inf)[weighted_ranks(weighs, weight, alpha)])


def _cell(view: RunView, scorer: str, alpha: Fraction, scored: WeightedScores) -> Cell:
    return Cell(view, scorer, alpha, int(scored.masks[0].sum()), _jackknife(scored, float(alpha)))


def _record(cell: Cell, question: Question, tolerance: float) -> Record:
    record = identity([cell])
    for name, estimate in cell.estimates.items():
        record |= interval_fields(name, estimate)
    record["finding"] = FINDINGS[limit_side(cell.estimates["coverage"].complement(), float(cell.alpha) + tolerance)]
    record |= dependence(cell.view) | {"unreliable": "; ".join(run_reasons(cell.view)) or None}
    return record | provenance([cell], question) | {"split": str(N_SPLITS)}


def _scored(view: RunView, scorer: str, question: Question, weight: FloatArray) -> WeightedScores:
    scores = scores_of(view, view.probs, scorer, question)
    masks = draw_splits(view.n_items, calibration_size(view.n_items, question.calibration_fraction), range(N_SPLITS))
    of_answer = scores[np.arange(view.n_items), view.answer]
    cluster = np.unique(view.cluster_of_set[view.position], return_inverse=True)[1]
    return WeightedScores(scores, of_answer, view.items.subject[view.position], weight, masks, cluster)


def _jackknife(scored: WeightedScores, alpha: float) -> dict[str, Estimate]:
    """The figures and their changes, each with the influence of 25 groups of whole clusters: what changes when a group is left out."""
    n_clusters = int(scored.cluster.max()) + 1
    n_groups = min(N_GROUPS, n_clusters)
    group = (np.random.default_rng(SEED).permutation(n_clusters) % n_groups)[scored.cluster]
    values = figures(scored, alpha)
    left = [figures(scored.keep(group != number), alpha) for number in range(n_groups)] if n_groups > 1 else [values]
    without = np.stack(left)
    influence = (n_groups - 1) * (without.mean(axis=0) - without)
    items = kish_items(np.bincount(scored.cluster, scored.weight[scored.subject]).astype(np.float64))
    largest = float(scored.scores.shape[1])
    estimates = {
        name: Estimate(float(values[i]), influence[:, i], name in SHARES, items=items, least=0.0, most=largest)
        for i, name in enumerate(FIGURES)
    }
    return estimates | {f"{name}_change": difference(estimates[name], estimates[f"unweighted_{name}"]) for name in ("coverage", "set_size")}
