"""One logged sample of lm-evaluation-harness: what was asked, the log-likelihoods, and the harness's own result.

In: a row of a samples file.  Out: a `Sample`. The arguments show where the harness asked something other than one continuation per choice
after one context: WinoGrande has its choices in the contexts, and acc_mutual_info asks each continuation without a context as well.
"""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from schemas.items import MAX_OPTIONS

MOST_LIKELY = 0.01  # largest log-likelihood: 0, and what sums of 16-bit numbers round to
BLANK = "_"  # marks the place of the choices in a question whose contexts contain the choices


@dataclass(frozen=True)
class Sample:
    """One document as the harness asked it.

    question      : the context, or, if the contexts contain the choices, the sentence with a blank for them.
    choices       : texts of the options, without surrounding spaces.
    continuations : texts whose log-likelihoods were taken, as the harness logged them.
    likelihoods   : log-likelihood of each option.
    unconditional : log-likelihood of each continuation without a context; () if it was not asked.
    in_context    : whether the contexts contain the choices, and the continuation is the same for all.
    target        : as logged: `str(target)`, which may be the text of an index, a choice or a list.
    results       : the sample's own metrics by name.
    """

    line: int
    doc_id: str
    question: str
    choices: tuple[str, ...]
    continuations: tuple[str, ...]
    likelihoods: tuple[float, ...]
    unconditional: tuple[float, ...]
    in_context: bool
    target: str
    results: Mapping[str, Any]

    def same_question(self, other: "Sample") -> bool:
        """Whether two samples are one document logged twice: same arguments, likelihoods and target."""
        names = ("question", "choices", "continuations", "likelihoods", "unconditional", "target")
        return all(getattr(self, name) == getattr(other, name) for name in names)


class _Request(NamedTuple):
    context: str
    continuation: str
    likelihood: float


def parse_sample(row: Any, line: int) -> Sample:
    """Return a sample. Raises ValueError, KeyError or TypeError for a row that is not of a multiple-choice document."""
    arguments = [_pair(argument) for argument in _in_order(row["arguments"])]
    likelihoods = [_likelihood(response) for response in row["filtered_resps"]]
    if len(arguments) != len(likelihoods):
        raise ValueError(f"{len(likelihoods)} responses to {len(arguments)} choices")
    requests = [_Request(*pair, likelihood) for pair, likelihood in zip(arguments, likelihoods, strict=True)]
    asked, unconditional = _without_unconditional(requests)
    if not 2 <= len(asked) <= MAX_OPTIONS:
        raise ValueError(f"{len(asked)} choices; expected 2 to {MAX_OPTIONS}")
    question, choices, in_context = _texts(asked)
    return Sample(
        line=line,
        doc_id=str(row["doc_id"]),
        question=question,
        choices=tuple(choices),
        continuations=tuple(request.continuation for request in asked),
        likelihoods=tuple(request.likelihood for request in asked),
        unconditional=tuple(request.likelihood for request in unconditional),
        in_context=in_context,
        target=str(row["target"]).strip(),
        results={name: value for name, value in row.items() if name not in ("arguments", "filtered_resps", "resps", "doc", "target")},
    )


def _in_order(arguments: Any) -> list[Any]:
    """Return the arguments as a list; newer versions of the harness write {"gen_args_0": ...} where older ones wrote a list."""
    return [arguments[f"gen_args_{number}"] for number in range(len(arguments))] if isinstance(arguments, dict) else list(arguments)


def _pair(argument: Any) -> tuple[str, str]:
    context, continuation = (argument["arg_0"], argument["arg_1"]) if isinstance(argument, dict) else (argument[0], argument[1])
    if not isinstance(context, str) or not isinstance(continuation, str):
        raise ValueError(f"an argument is not a context and a continuation but {str(context)[:40]!r}, {str(continuation)[:40]!r}")
    return context, continuation


def _likelihood(response: Any) -> float:
    """Return the log-likelihood of a response [log-likelihood, is_greedy], whose values are numbers or text, depending on the version.

    A response that no filter took out of its list is a list of one.
    """
    if isinstance(response, list) and len(response) == 1:
        response = response[0]
    if not isinstance(response, list) or len(response) != 2:
        raise ValueError(f"a response is not a log-likelihood but {str(response)[:40]!r}")
    value = float(response[0])
    if value > MOST_LIKELY:
        raise ValueError(f"a response of {value:g} is no log-likelihood, which is at most 0")
    return value


def _without_unconditional(requests: Sequence[_Request]) -> tuple[Sequence[_Request], Sequence[_Request]]:
    """Split off the second half of the requests if it repeats the continuations without a context (acc_mutual_info)."""
    half = len(requests) // 2
    first, second = requests[:half], requests[half:]
    again = [one.continuation for one in first] == [one.continuation for one in second]
    if len(requests) % 2 == 0 and half >= 2 and again and not any(request.context for request in second):
        return first, second
    return requests, ()


def _texts(requests: Sequence[_Request]) -> tuple[str, list[str], bool]:
    """Return the question, the texts of the options, and whether the contexts contain the options."""
    contexts, continuations = [one.context for one in requests], [one.continuation for one in requests]
    if len(set(contexts)) == 1 and len(set(continuations)) == 1:
        raise ValueError("all choices are asked the same context and continuation")
    if len(set(contexts)) == 1 or len(set(continuations)) == len(requests):
        return contexts[0] or "-", [text.strip() or text for text in continuations], False
    shared = os.path.commonprefix(contexts)  # noqa: RUF071  # of texts, not of paths
    shared = shared[: max(shared.rfind(blank) for blank in " \n\t") + 1]  # back to the start of the word in which they begin to differ
    rests = [context[len(shared) :] for context in contexts]
    if len(set(contexts)) < len(contexts) or len(set(continuations)) > 1:
        return shared or "-", [(rest + text).strip() for rest, text in zip(rests, continuations, strict=True)], False
    return f"{shared}{BLANK}{continuations[0]}", [rest.strip() or rest for rest in rests], True
