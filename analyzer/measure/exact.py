"""The `exact` protocol: which kind of cells a question asks for, one run and scorer at a time."""

from collections.abc import Iterator

from analyzer.measure.cell import Measured, nothing
from analyzer.measure.groups import group_cells
from analyzer.measure.mondrian_label import label_cells
from analyzer.measure.mondrian_subject import subject_cells
from analyzer.measure.question import Question
from analyzer.measure.scored import calibration_masks, cell, measure, score_run
from analyzer.measure.tempered import tempered_cells
from analyzer.runs.view import RunView
from schemas.errors import UsageError


def cells(view: RunView, scorer: str, question: Question) -> Iterator[Measured]:
    """Yield the cells of the question, alpha by alpha: the run as a whole, then its groups where some are asked for.

    Raises UsageError for a combination that has no meaning.
    """
    _check(question)
    if view.n_items < 2:
        yield from (nothing(view, scorer, alpha) for alpha in question.alphas)
    elif question.mondrian != "none":
        mondrian = subject_cells if question.mondrian == "subject" else label_cells
        yield from mondrian(view, view.probs, scorer, question)
    elif question.reliability != "none":
        yield from tempered_cells(view, scorer, question, calibration_masks(view, question))
    elif question.by != "none":
        scored = score_run(view, view.probs, scorer, question, calibration_masks(view, question))
        for place in range(len(question.alphas)):
            yield from group_cells(scored, place, cell(scored, place))
    else:
        yield from measure(view, scorer, question)


def _check(question: Question) -> None:
    asked = [name for name in ("by", "mondrian", "reliability") if getattr(question, name) != "none"]
    if len(asked) > 1:
        raise UsageError(f"{' and '.join('--' + name for name in asked)} answer different questions; ask for one of them")
    if question.reliability != "none" and question.split.exact:
        raise UsageError(f"--reliability {question.reliability} is fitted on the calibration items of a split; draw some with --split N")
