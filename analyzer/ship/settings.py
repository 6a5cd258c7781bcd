"""The settings of a predictor, and what they guarantee in a sentence or two."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from analyzer.runs.answer_metrics import dependence
from analyzer.runs.view import RunView
from analyzer.studies.cost import Prices
from schemas.levels import method_and_level

MOST_NAMED = 6  # subjects that the sentence names
ALONE_CONFIDENCE = Fraction(19, 20)  # of the limit on wrong answers, if none is given


@dataclass(frozen=True)
class PredictorSettings:
    """The settings of a predictor.

    confidence : probability over draws of the calibration items that coverage holds; None for coverage on average over draws.
    by_subject : whether every subject gets a threshold of its own.
    tempered   : whether to fit a temperature first.
    one_each   : whether only one item of each cluster calibrates; else all items do, whether they are independent or not.
    max_wrong  : largest share of wrong answers among the questions answered without review; None for no limit.
    prices     : what a question costs under each decision; None without prices.
    mix        : share of each subject among the questions to come; None for the shares that they have among the items.
    """

    alpha: Fraction = Fraction(1, 10)
    scorer: str = "lac"
    parameters: Mapping[str, float] | None = None
    empty: str = "keep"
    by_subject: bool = False
    tempered: bool = False
    confidence: Fraction | None = None
    max_wrong: Fraction | None = None
    prices: Prices | None = None
    ask_again_up_to: int = 2
    one_each: bool = False
    mix: Mapping[str, float] | None = None


def guarantee(view: RunView, settings: PredictorSettings) -> str:
    """Return what a predictor of these settings, calibrated on these items, guarantees."""
    row = view.row
    share = f"at least {100 * float(1 - settings.alpha):g} % of the questions have their answer in their set"
    within = ", within each subject by itself," if settings.by_subject else ""
    over = (
        f"on average over draws of the {view.n_items} calibration questions"
        if settings.confidence is None
        else f"for all but {100 * float(1 - settings.confidence):g} % of draws of the {view.n_items} calibration questions"
    )
    whom = f"{row['model']} ({method_and_level(row['method'], row['level'])})"
    alone = (
        ""
        if settings.max_wrong is None
        else f" Of the questions answered alone, at most {100 * float(settings.max_wrong):g} % are answered wrongly, "
        f"with {100 * float(settings.confidence or ALONE_CONFIDENCE):g} % confidence."
    )
    return (
        f"{share[0].upper()}{share[1:]}{within} {over}, for questions drawn as those of task {row['task']} were{_under(settings)}, "
        f"put to {whom} with prompt {row['prompt']}.{_depends(view, settings)}{alone}"
    )


def _under(settings: PredictorSettings) -> str:
    """Return the mix of subjects for which a threshold is made, in words; "" for the items' own."""
    if settings.mix is None:
        return ""
    total = sum(settings.mix.values())
    named = [f"{name} {share / total:.3g}" for name, share in sorted(settings.mix.items(), key=lambda pair: -pair[1]) if share > 0]
    more = f" and {len(named) - MOST_NAMED} more" if len(named) > MOST_NAMED else ""
    return f" within each subject, in the mix {', '.join(named[:MOST_NAMED])}{more}"


def _depends(view: RunView, settings: PredictorSettings) -> str:
    """Return what items that depend on each other mean for the guarantee; "" if no two ask the same question and no clusters were given."""
    if settings.one_each:
        return " One question of each cluster of dependent questions calibrated, so it holds for a question of a new cluster."
    n_questions = dependence(view)["n_questions"]
    if n_questions == view.n_items:
        return ""
    return (
        f" It would be exact for independent questions; here only {n_questions} of the {view.n_items} are different, "
        "and --cluster question calibrates on one of each."
    )
