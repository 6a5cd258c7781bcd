"""Measure one run under one scorer: all cells of a question, alpha by alpha."""

from collections.abc import Iterator

from analyzer.measure.cell import Cell, unmeasured
from analyzer.measure.groups import group_cells
from analyzer.measure.mondrian import label_cells, subject_cells
from analyzer.measure.question import Question
from analyzer.measure.scored import calibration_masks, measure_alpha, score_run
from analyzer.measure.temperature import tempered_cells
from analyzer.runs.view import RunView
from schemas.errors import UsageError


def measure_run(view: RunView, scorer: str, question: Question) -> Iterator[Cell]:
    """Yield the cells of the question for every alpha: the run as a whole, then its groups if the question has groups.

    Raises UsageError for options that cannot be combined, or if the calibration fraction leaves one side of the split empty.
    """
    _check(question)
    if view.n_items < 2:
        yield from (unmeasured(view, scorer, alpha) for alpha in question.alphas)
    elif question.mondrian != "none":
        by_group = subject_cells if question.mondrian == "subject" else label_cells
        yield from by_group(view, scorer, question)
    elif question.reliability != "none":
        yield from tempered_cells(view, scorer, question)
    else:
        scored = score_run(view, view.probs, scorer, question, calibration_masks(view, question))
        for alpha in question.alphas:
            cell = measure_alpha(scored, alpha)
            yield from group_cells(scored, alpha, cell) if question.by != "none" else (cell,)


def _check(question: Question) -> None:
    separate = [name for name in ("by", "mondrian", "reliability") if getattr(question, name) != "none"]
    if len(separate) > 1:
        raise UsageError(f"{' and '.join('--' + name for name in separate)} cannot be combined; use one of them")
    if question.reliability != "none" and question.split.exact:
        raise UsageError(f"--reliability {question.reliability} is fitted on the calibration items of a split; draw some with --split N")
