"""`analyze sets`: prediction sets of every run, one record per run, scorer and alpha."""

from collections.abc import Iterator

from analyzer.loading import Runs
from analyzer.measured import Measured
from analyzer.protocols import rules
from analyzer.question import Question
from analyzer.records import Record, average_groups, cell_record


def sets(runs: Runs, question: Question, *, average: bool = False) -> list[Record]:
    """Return the records of every run.

    average : one record per model, method, level, task and alpha instead, the mean over prompts and scorers.
    """
    if average:
        return [cell_record(group, question) for group in average_groups(measured(runs, question))]
    return [cell_record([cell], question) for cell in measured(runs, question)]


def measured(runs: Runs, question: Question) -> Iterator[Measured]:
    """Yield one cell per run, scorer and alpha, in reading order; one run's arrays in memory at a time."""
    protocol = rules(question.protocol)
    for view in runs.views():
        chosen = protocol.choose(view)
        for scorer in question.scorers:
            yield from protocol.measure(chosen, scorer, question)
