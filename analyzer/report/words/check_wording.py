"""The checks of the gate in words and as bars. Every figure is turned so that more is worse: coverage kept becomes misses."""

from collections.abc import Sequence
from typing import NamedTuple

from analyzer.gate.ci_reports import sentence, title
from analyzer.gate.gate import FAIL
from analyzer.gate.policy import LIMITABLE, Limit
from analyzer.measure.records import Record

BAR_LIMIT, BAR_LOW, BAR_HIGH = 25.0, -40.0, 80.0  # where the limit stands, and the ends of a bar; no change is at 0
PERCENT = (100, " %", 1)


class Wording(NamedTuple):
    """How a figure is said: its name on a bar, the beginning of a sentence, what a policy asks of it, and its unit.

    direction : 1 where harm is more of what the short name says, -1 where it is less, 0 where it is no change.
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
        return f"{self.times * value:.{self.digits}f}{self.unit}"

    def change(self, value: float) -> str:
        """Return a value as a change of what the short name says: lost accuracy is less of it."""
        if self.direction == 0:
            return self.amount(value)
        return f"{self.direction * self.times * value:+.{self.digits}f}{self.unit}"


WORDINGS = {
    "accuracy_loss": Wording("accuracy", "Accuracy falls by", "loses at most {} of accuracy", 100, " points", 1, -1),
    "set_size_growth": Wording("sets", "Sets grow by", "has prediction sets that grow by at most {} on average", 1, " options", 2, 1),
    "coverage_after_transfer": Wording("misses", "The dense threshold misses", "misses at most {} under the dense threshold", *PERCENT),
    "flips": Wording("flips", "Right and wrong swap in", "swaps right and wrong in at most {} of questions", *PERCENT),
    "flips_to_wrong": Wording("to wrong", "Right turns to wrong in", "turns right to wrong in at most {} of questions", *PERCENT),
    "answers_changed": Wording("answers", "Answers change in", "changes at most {} of answers", *PERCENT),
    "kl": Wording("KL", "KL divergence is", "diverges by at most {} (KL)", 1, " nats", 3),
    "kl_reverse": Wording("KL back", "Reverse KL divergence is", "diverges by at most {} (reverse KL)", 1, " nats", 3),
    "js": Wording("JS", "JS divergence is", "diverges by at most {} (Jensen-Shannon)", 1, " nats", 3),
}


class Harm(NamedTuple):
    """Amount, its interval and its limit, more being worse."""

    amount: float
    low: float
    high: float
    limit: float


def harm(check: Record) -> Harm | None:
    """Return a check as harm; None where it has no figure or no interval."""
    if check["limit"] is None or check["amount"] is None or check["amount_low"] is None:
        return None
    if LIMITABLE[check["check"]].at_least:
        return Harm(1 - check["amount"], 1 - check["amount_high"], 1 - check["amount_low"], 1 - check["limit"])
    return Harm(check["amount"], check["amount_low"], check["amount_high"], check["limit"])


def said(check: Record) -> str:
    """Return a check in words, with its interval and its limit."""
    found = harm(check)
    if found is None and check["unreliable"]:
        return f"Cannot be trusted on {check['task']}: {check['unreliable']}"
    if found is None:
        return f"{title(check)} on {check['task']}: {sentence(check)}"
    words = WORDINGS[check["check"]]
    low, high = (f"{words.times * end:.{words.digits}f}" for end in (found.low, found.high))
    where = f" on {check['task']}" + (f", {check['subject']}" if check["subject"] else "")
    limit = f"{words.times * found.limit:g}"
    ending = f"; at most {limit} is allowed" if check["result"] == FAIL else f", which may or may not be more than the allowed {limit}"
    return f"{words.sentence} {words.amount(found.amount)} [{low} to {high}]{where}{ending}"


def broken(checks: Sequence[Record]) -> str:
    """Return what limits were broken by, the largest amount of each figure; empty where none is."""
    failed = {name: [check for check in checks if check["check"] == name and check["result"] == FAIL] for name in WORDINGS}
    parts = [f"{WORDINGS[name].short} {WORDINGS[name].change(_most(found))}" for name, found in failed.items() if found]
    untrusted = any(check["limit"] is None and check["result"] == FAIL for check in checks)
    return ", ".join([*(["cannot be trusted"] if untrusted else []), *parts])


def worst(checks: Sequence[Record]) -> str:
    """Return the largest upper end of each figure: what even the most cautious reading leaves."""
    parts = []
    for name, words in WORDINGS.items():
        ends = [found.high for check in checks if check["check"] == name and (found := harm(check))]
        if ends:
            parts.append(f"{words.short} {words.change(max(ends))}")
    return "at the very worst " + ", ".join(parts) if parts else f"all {len(checks)} checks pass"


def bar(check: Record) -> Record | None:
    """Return what draws a check: where its bar begins, how wide it is, where its limit stands, and its words; None without a figure."""
    found = harm(check)
    if found is None:
        return None
    scale = BAR_LIMIT / max(found.limit, 1e-9)
    low, high = (min(max(scale * end, BAR_LOW), BAR_HIGH) for end in (found.low, found.high))
    words = WORDINGS[check["check"]]
    place = {"low": round(low, 2), "width": round(max(high - low, 1.5), 2), "limit": BAR_LIMIT}
    texts = {"words": words.short, "amount": words.change(found.amount)}
    return check | place | texts | {"nearness": found.high / max(found.limit, 1e-9), "allowed": words.amount(found.limit)}


def policy_words(limits: Sequence[Limit]) -> str:
    """Return what the gate asks of a compressed model, as the end of a sentence."""
    parts = []
    for limit in limits:
        where = f" on {limit.task}" if limit.task else " in every subject" if limit.worst_subject else ""
        words = WORDINGS[limit.figure]
        value = 1 - limit.value if LIMITABLE[limit.figure].at_least else limit.value
        parts.append(words.policy.format(f"{words.times * value:g}{words.unit}") + where)
    return ", and ".join(parts)


def _most(checks: Sequence[Record]) -> float:
    return max(found.amount for check in checks if (found := harm(check)))
