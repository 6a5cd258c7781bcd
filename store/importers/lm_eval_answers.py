"""Find the answer of each logged sample, and check it against the harness's own results.

In: the samples of one file.  Out: the index of the answer of each. The file does not say whether a target is an index or the text of a
choice; an interpretation is only accepted if it reproduces every sample's logged acc, acc_norm, acc_bytes and acc_mutual_info.
"""

import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from string import ascii_uppercase
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from schemas.errors import UsageError
from store.importers.lm_eval_samples import Sample

log = logging.getLogger(__name__)

GOLD_FIRST = ("f1", "mcc", "brier_score", "likelihood")  # metrics logged as [answer, prediction]
VOID_FROM = 20  # samples; a metric that is 0 in at least so many, though some most likely options are targets, was not measured
_INDEX = re.compile(r"(\d{1,4})(?:\.0)?")
_LIST = re.compile(r"\[\s*(\d{1,4}(?:\s*,\s*\d{1,4})*)\s*\]")

Values = Callable[[Sample], NDArray[np.float64]]


class Disagreement(NamedTuple):
    """A sample whose logged result contradicts an interpretation of its target."""

    sample: Sample
    problem: str


def values_by_metric(samples: Sequence[Sample], delimiter: int) -> dict[str, Values]:
    """Return for each accuracy of the harness the values per option, of which the largest is its choice.

    delimiter : number of characters before the choice in a continuation, usually one space; they do not count for its length.
    """
    values: dict[str, Values] = {"acc": lambda one: np.array(one.likelihoods)}
    if not any(sample.in_context for sample in samples):  # the lengths that count there are those of texts that are not logged
        values["acc_norm"] = lambda one: _over(one, [len(text) - delimiter for text in one.continuations])
        values["acc_bytes"] = lambda one: _over(one, [len(text.encode()) - delimiter for text in one.continuations])
    if all(sample.unconditional for sample in samples):
        values["acc_mutual_info"] = lambda one: np.array(one.likelihoods) - np.array(one.unconditional)
    return values


def delimiters(samples: Sequence[Sample]) -> list[int]:
    """Return the possible lengths of the delimiter, which is made of the leading spaces of all continuations, the likeliest first."""
    most = min((len(text) - len(text.lstrip()) for one in samples for text in one.continuations), default=0)
    return sorted(range(min(most, 4) + 1), key=lambda number: (number != 1, number))


def read_answers(samples: Sequence[Sample], file_name: str) -> tuple[list[int], int]:
    """Return the index of each sample's answer, and the length of the delimiter before a choice.

    Raises UsageError that names the first sample without an answer, with several answers, or whose logged result disagrees.
    """
    problems: list[Disagreement] = []
    fitting: list[tuple[list[int], int]] = []
    checked = False
    for read in READINGS:
        answers, unread = _all(read, samples)
        if unread is not None:
            problems += [unread] if unread.problem else []
            continue
        void = _void(samples, answers)
        for delimiter in delimiters(samples):
            wrong = next(_disagreements(samples, answers, delimiter, void), None)
            if wrong is None:
                fitting.append((answers, delimiter))
                break
            problems.append(wrong)
        checked = checked or any(metric not in void for one in samples for metric in _results_by_answer(one))
    if not fitting:
        first = problems[0] if problems else _unreadable(samples)
        raise UsageError(f"{file_name} line {first.sample.line}, doc_id {first.sample.doc_id}: {first.problem}")
    if any(answers != fitting[0][0] for answers, _ in fitting):
        why = "its own results fit both" if checked else "it has no results of its own that would tell"
        raise UsageError(f"{file_name}: its targets can be indices or texts of choices, and {why}; it cannot be read")
    if not checked:
        log.warning(
            "%s: no sample has a result such as acc that would show whether its target is read rightly; it is taken as %s",
            file_name, "an index from 0" if _by_index(samples[0]) == fitting[0][0][0] else "the text or letter of a choice",
        )  # fmt: skip
    for metric in sorted(_void(samples, fitting[0][0])):
        log.warning(
            "%s: its %s is 0 in all %d samples although the likeliest choice is the target in some, so it was not used as a check",
            file_name, metric, len(samples),
        )  # fmt: skip
    return fitting[0]


def _all(read: Callable[[Sample], int | None], samples: Sequence[Sample]) -> tuple[list[int], Disagreement | None]:
    answers = []
    for sample in samples:
        try:
            answer = read(sample)
        except ValueError as error:
            return [], Disagreement(sample, str(error))
        if answer is None:
            return [], Disagreement(sample, "")
        answers.append(answer)
    return answers, None


def _unreadable(samples: Sequence[Sample]) -> Disagreement:
    """Return the first sample whose target cannot be interpreted like the first sample's."""
    reading = next((read for read in READINGS if read(samples[0]) is not None), None)
    odd = next((sample for sample in samples if reading is None or reading(sample) is None), samples[0])
    like = "" if reading is None else f" in the way of the others, such as {samples[0].target[:80]!r}"
    return Disagreement(odd, f"its target {odd.target[:80]!r} is none of its {len(odd.choices)} choices{like}")


def _by_result(sample: Sample) -> int | None:
    """The answer if the choices are in the contexts: the log has no index of it, but with two options acc reveals it."""
    if not sample.in_context or sample.target != sample.continuations[0].strip():
        return None
    acc, likeliest = _results_by_answer(sample).get("acc"), int(np.argmax(sample.likelihoods))
    if acc == 1:
        return likeliest
    if acc == 0 and len(sample.choices) == 2:
        return 1 - likeliest
    raise ValueError("its choices stand in the contexts, and neither target nor acc says which is the answer")


def _by_index(sample: Sample) -> int | None:
    if several := _LIST.fullmatch(sample.target):
        indices = {int(part) for part in several[1].split(",")}
        if len(indices) > 1:
            raise ValueError(f"it has several right answers ({sample.target[:80]}); a prediction set is judged by one")
        return _within(indices.pop(), sample)
    match = _INDEX.fullmatch(sample.target)
    return _within(int(match[1]), sample) if match else None


def _by_text(sample: Sample) -> int | None:
    texts = [text.strip() for text in sample.continuations]
    return texts.index(sample.target) if not sample.in_context and sample.target in texts else None


def _by_letter(sample: Sample) -> int | None:
    letters = ascii_uppercase[: len(sample.choices)]
    texts = [text.strip() for text in sample.continuations]
    return letters.index(sample.target) if len(sample.target) == 1 and sample.target in letters and sample.target not in texts else None


READINGS = (_by_result, _by_index, _by_text, _by_letter)


def _within(index: int, sample: Sample) -> int | None:
    return index if index < len(sample.choices) else None


def _results_by_answer(sample: Sample) -> Mapping[str, Any]:
    """The sample's logged results that depend on the answer."""
    names = ("acc", "acc_norm", "acc_bytes", "acc_mutual_info", *GOLD_FIRST)
    return {name: sample.results[name] for name in names if sample.results.get(name) is not None}


def _void(samples: Sequence[Sample], answers: Sequence[int]) -> set[str]:
    """Metrics that are 0 in all of many samples, although the most likely choice is the answer in some; they were not measured."""
    if len(samples) < VOID_FROM:
        return set()
    some_right = any(int(np.argmax(one.likelihoods)) == answer for one, answer in zip(samples, answers, strict=True))
    return {name for name in _results_by_answer(samples[0]) if some_right and all(one.results.get(name) == 0 for one in samples)}


def _disagreements(samples: Sequence[Sample], answers: Sequence[int], delimiter: int, void: set[str]) -> Iterator[Disagreement]:
    by_metric = values_by_metric(samples, delimiter)
    for sample, answer in zip(samples, answers, strict=True):
        for metric, value in _results_by_answer(sample).items():
            if metric in GOLD_FIRST:
                if isinstance(value, list) and value and isinstance(value[0], int) and value[0] != answer:
                    yield Disagreement(
                        sample, f"its target {sample.target[:80]!r} is choice {answer}, its {metric} counts choice {value[0]}"
                    )
            elif value not in (0, 1):
                yield Disagreement(sample, f"its {metric} is {value!r}, not 0 or 1: several answers are right, or it is another figure")
            elif metric in by_metric and metric not in void:
                right = int(np.argmax(by_metric[metric](sample))) == answer
                if right != bool(value):
                    yield Disagreement(
                        sample,
                        f"by its target {sample.target[:80]!r} and its log-likelihoods its {metric} is {int(right)}, but it says {value:g}",
                    )


def _over(sample: Sample, lengths: Sequence[int]) -> NDArray[np.float64]:
    with np.errstate(divide="ignore", invalid="ignore"):  # an empty choice gives -inf, as in the harness, and is refused later
        return np.asarray(np.array(sample.likelihoods) / np.array(lengths, dtype=np.float64))
