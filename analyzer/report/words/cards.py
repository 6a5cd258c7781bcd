"""The verdict on every compressed model: the release gate over all its tasks, prompts and scorers, and the reason in words.

In sentences and bars more is always worse: coverage, of which more is better, becomes the share of misses.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from analyzer.gate.ci_reports import next_look, sentence, title, would_decide
from analyzer.gate.gate import FAIL, INCONCLUSIVE, PASS, SUPERSEDED, outcome
from analyzer.gate.policy import LIMITABLE, Limit
from analyzer.measure.records import Record
from analyzer.report.data.study import Study
from analyzer.tables.numbers import fixed
from schemas.levels import method_and_level
from schemas.run import DENSE

RANK = {PASS: 0, INCONCLUSIVE: 1, FAIL: 2}
WORDS = {PASS: "may ship", INCONCLUSIVE: "undecided", FAIL: "must not ship"}
MEANINGS = {
    PASS: "All limits are kept. A model that exceeds one passes with a probability of at most 2.5 %.",
    INCONCLUSIVE: "No limit is exceeded for sure, and not all are kept for sure: too few questions, or a figure that allows no conclusion.",
    FAIL: "A limit is exceeded, or a run cannot be trusted. A model that keeps all limits fails with a probability of at most 2.5 %.",
}
BAR_LIMIT, BAR_LOW, BAR_HIGH = 25.0, -40.0, 80.0  # position of a bar's limit, and the ends of the scale; no change is at 0
SHORTEST_BAR = 1.5
PERCENT = (100, " %", 1)


class Wording(NamedTuple):
    """How a figure is put into words: its name on a bar, the beginning of a sentence, what a policy demands, and its unit.

    times     : factor from the stored number to the unit.
    direction : 1 if harm means more of what the short name says, -1 if it means less, 0 if harm has no sign.
    """

    short: str
    sentence: str
    policy: str
    times: int
    unit: str
    digits: int
    direction: int = 0

    def amount(self, value: float) -> str:
        """Return a value with its unit."""
        return f"{fixed(self.times * value, self.digits)}{self.unit}"

    def change(self, value: float) -> str:
        """Return a value as a signed change of what the short name says: a loss of accuracy is a negative change."""
        if self.direction == 0:
            return self.amount(value)
        return f"{fixed(self.direction * self.times * value, self.digits, sign=True)}{self.unit}"


WORDINGS = {
    "accuracy_loss": Wording("accuracy", "Accuracy falls by", "loses at most {} of accuracy", 100, " points", 1, -1),
    "set_size_growth": Wording("sets", "Sets grow by", "has prediction sets that grow by at most {} on average", 1, " options", 2, 1),
    "coverage_after_transfer": Wording(
        "misses", "With the dense model's threshold, sets miss the answer in", "misses at most {} at the dense model's threshold", *PERCENT
    ),
    "flips": Wording("flips", "Right and wrong swap in", "swaps right and wrong in at most {} of questions", *PERCENT),
    "flips_to_wrong": Wording("to wrong", "Right turns to wrong in", "turns right to wrong in at most {} of questions", *PERCENT),
    "answers_changed": Wording("answers", "The chosen option changes in", "changes the chosen option in at most {} of questions", *PERCENT),
    "kl": Wording("KL", "The KL divergence from the dense run is", "has a KL divergence of at most {}", 1, " nats", 3),
    "kl_reverse": Wording("reverse KL", "The reverse KL divergence is", "has a reverse KL divergence of at most {}", 1, " nats", 3),
    "js": Wording("JS", "The Jensen-Shannon divergence is", "has a Jensen-Shannon divergence of at most {}", 1, " nats", 3),
}


@dataclass(frozen=True)
class Card:
    """One compressed model. `checks` are the gate's records over all its runs; `why` explains the result in a sentence or two.

    not_judged : tasks of its dense runs, and tasks that the policy limits, on which it has no run among those of the report.
    """

    model: str
    method: str
    level: str
    result: str
    why: str
    checks: Sequence[Record]
    not_judged: Sequence[str] = ()

    @property
    def name(self) -> str:
        """Method and level in one text."""
        return method_and_level(self.method, self.level)

    @property
    def label(self) -> str:
        """Model, method, level and tasks in one text, which the page searches."""
        return " · ".join([self.model, self.name, *self.tasks])

    @property
    def tasks(self) -> list[str]:
        """The tasks on which it is judged."""
        return list(dict.fromkeys(check["task"] for check in self.checks))

    @property
    def short(self) -> str:
        """By how much limits are exceeded, in a few words: the largest of each figure; and what it is not judged on. "" if neither."""
        failed = {name: [check for check in self.checks if check["check"] == name and check["result"] == FAIL] for name in WORDINGS}
        parts = [f"{WORDINGS[name].short} {WORDINGS[name].change(_largest_amount(checks))}" for name, checks in failed.items() if checks]
        untrusted = any(check["limit"] is None and check["result"] == FAIL for check in self.checks)
        missing = [f"not judged on {', '.join(self.not_judged)}"] if self.not_judged else []
        return ", ".join([*(["cannot be trusted"] if untrusted else []), *parts, *missing])

    @property
    def bars(self) -> list[Record]:
        """The checks that have a figure, with the data of their bars; first those nearest to their limit or furthest beyond it."""
        drawn = [bar for check in self.checks if (bar := _bar(check))]
        return sorted(drawn, key=lambda bar: -bar["nearness"])


def cards(study: Study) -> list[Card]:
    """Return one card per compressed model that has a dense run, those that may ship first."""
    judged_models = []
    for (model, method, level), group in groupby(study.checks, key=_of_model):
        checks = [check for check in group if check["check"] != SUPERSEDED]
        result, judged = outcome(checks), {check["task"] for check in checks}
        missing = sorted(_expected_tasks(study, model) - judged)
        why = " ".join([_why(result, checks), *([f"It is not judged on {', '.join(missing)}, without a run there."] if missing else [])])
        judged_models.append(Card(model, method, level, result, why, checks, missing))
    return sorted(judged_models, key=lambda card: RANK[card.result])


def _expected_tasks(study: Study, model: str) -> set[str]:
    """Return the tasks of the dense runs that a model's runs are compared with, and those that the policy limits by name."""
    dense = study.request.against or model
    of_dense = {row["task"] for row in study.runs.rows if row["method"] == DENSE and row["model"] == dense}
    return of_dense | {limit.task for limit in study.request.policy.limits if limit.task}


def policy_words(limits: Sequence[Limit]) -> str:
    """Return what the gate demands of a compressed model, as the end of a sentence."""
    parts = []
    for limit in limits:
        where = f" on {limit.task}" if limit.task else " in every subject" if limit.worst_subject else ""
        words = WORDINGS[limit.figure]
        value = 1 - limit.value if LIMITABLE[limit.figure].at_least else limit.value
        parts.append(words.policy.format(f"{words.times * value:g}{words.unit}") + where)
    return ", and ".join(parts)


class Harm(NamedTuple):
    """Amount of a figure, its interval and its limit, where more is worse."""

    amount: float
    low: float
    high: float
    limit: float


def _of_model(check: Record) -> tuple[str, str, str]:
    return check["model"], check["method"], check["level"]


def _why(result: str, checks: Sequence[Record]) -> str:
    """Return the reason for the gate's result: the check furthest beyond its limit, and how many others have the same result."""
    if result == PASS:
        return f"Every limit is kept{_worst(checks)}."
    deciding = [check for check in checks if check["result"] == result]
    first, others = max(deciding, key=_beyond), len(deciding) - 1
    limit = _limit_words(first)
    many = f"{others} other check{'s' if others > 1 else ''}" if others else ""
    if result == FAIL:
        ending = f"; the limit is {limit}." if limit else "."
        return f"{_in_words(first)}{ending}" + (f" {many} fail{'' if others > 1 else 's'} too." if many else "")
    unclear = f"{many} {'are' if others > 1 else 'is'} also unclear" if many else ""
    could = first["reason"] or (f"This could be above or below the limit of {limit}" if limit else "")
    parts = [part for part in (could, unclear) if part and (limit or part != could)]
    ending = "; ".join(parts) + "." if parts else ""
    return f"{_in_words(first)}. {ending[:1].upper()}{ending[1:]}".rstrip() + _would_decide(deciding)


def _in_words(check: Record) -> str:
    """Return a check in words, with its interval, without a final period."""
    harm = _harm(check)
    if harm is None and check["unreliable"]:
        first, *others = check["unreliable"].split("; ")
        more = f", and {len(others)} more reason{'s' if len(others) > 1 else ''} in the last panel" if others else ""
        return f"Cannot be trusted on {check['task']}: {first}{more}"
    if harm is None:
        return f"{title(check)} on {check['task']}: {sentence(check)}"
    words = WORDINGS[check["check"]]
    low, high = (fixed(words.times * end, words.digits) for end in (harm.low, harm.high))
    where = f" on {check['task']}" + (f", {check['subject']}" if check["subject"] else "")
    interval = "" if math.isnan(harm.low) else f" [{low} to {high}]"
    return f"{words.sentence} {words.amount(harm.amount)}{interval}{where}"


def _limit_words(check: Record) -> str:
    harm = _harm(check)
    return f"{WORDINGS[check['check']].times * harm.limit:g}" if harm else ""


def _harm(check: Record) -> Harm | None:
    """Return a check as harm, with ends NaN where nothing may be concluded; None if it has no figure, or an interval without end."""
    low, high = check["amount_low"], check["amount_high"]
    if check["limit"] is None or check["amount"] is None or (low is None) != (high is None):
        return None
    low, high = (math.nan, math.nan) if low is None else (low, high)
    if LIMITABLE[check["check"]].at_least:
        return Harm(1 - check["amount"], 1 - high, 1 - low, 1 - check["limit"])
    return Harm(check["amount"], low, high, check["limit"])


def _beyond(check: Record) -> float:
    """Return how far a check is beyond its limit, as a multiple of the limit; infinite for a check without a figure."""
    harm = _harm(check)
    return (harm.amount - harm.limit) / max(harm.limit, 1e-9) if harm else math.inf


def _would_decide(checks: Sequence[Record]) -> str:
    """Return how many questions would be enough to decide, in which direction, and at how many the plan has its next look."""
    words, following = would_decide(checks, "questions", _check_name), next_look(checks, "questions")
    return (f" {words[0].upper()}{words[1:]}." if words else "") + (f" {following}" if following else "")


def _check_name(check: Record) -> str:
    """Return what a sentence calls a check, as its bar does."""
    where = f" in {check['subject']}" if check["subject"] else ""
    scorer = f" ({check['scorer']})" if check["scorer"] != "-" else ""
    return f"the check of {WORDINGS[check['check']].short}{where}{scorer}"


def _worst(checks: Sequence[Record]) -> str:
    """Return the worst end of the interval of each figure, which is the largest harm that remains possible."""
    parts = []
    for name, words in WORDINGS.items():
        ends = [harm.high for check in checks if check["check"] == name and (harm := _harm(check))]
        if ends:
            parts.append(f"{words.short} {words.change(max(ends))}")
    return f", even at the worst end of every interval: {', '.join(parts)}" if parts else ""


def _bar(check: Record) -> Record | None:
    """Return the data of a check's bar: start, width, position of the limit, and words; None if the check has no figure.

    An interval from which nothing may be concluded has no bar (`width` None), so that no bar contradicts its result. One that is too short
    to be seen becomes longer away from its limit, or on both sides if the check is undecided. `goes_on`: it ends beyond the scale.
    """
    harm = _harm(check)
    if harm is None:
        return None
    words, limit = WORDINGS[check["check"]], max(harm.limit, 1e-9)
    bar = {"words": words.short, "amount": words.change(harm.amount), "allowed": words.amount(harm.limit), "limit": BAR_LIMIT}
    if math.isnan(harm.high):
        return check | bar | {"width": None, "goes_on": False, "nearness": harm.amount / limit}
    scale = BAR_LIMIT / limit
    low, high = (min(max(scale * end, BAR_LOW), BAR_HIGH) for end in (harm.low, harm.high))
    missing = max(SHORTEST_BAR - (high - low), 0.0)
    start = low - missing * {PASS: 1.0, FAIL: 0.0}.get(check["result"], 0.5)
    drawn = {"low": round(start, 2), "width": round(high - low + missing, 2), "goes_on": scale * harm.high > BAR_HIGH}
    return check | bar | drawn | {"nearness": harm.high / limit}


def _largest_amount(checks: Sequence[Record]) -> float:
    """Return the largest amount among failed checks of one figure; each has an amount, since only an interval can fail a check."""
    return max(harm.amount for check in checks if (harm := _harm(check)))
