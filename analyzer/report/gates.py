"""The verdict of every compressed model: the release gate over all its tasks, prompts and scorers, and why it ended so, in words."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby

from analyzer.paired import Paired
from analyzer.records import Record
from analyzer.report.study import Study
from analyzer.verdicts.gate import FAIL, INCONCLUSIVE, PASS, check_pairs, outcome
from analyzer.verdicts.policy import Limit
from analyzer.verdicts.summaries import sentence, title

HOPELESS = 100_000  # questions
RANK = {PASS: 0, INCONCLUSIVE: 1, FAIL: 2}
WORDS = {PASS: "may ship", INCONCLUSIVE: "undecided", FAIL: "must not ship"}
MEANINGS = {
    PASS: "Within every limit, with 95 % confidence.",
    INCONCLUSIVE: "The questions asked are too few to tell.",
    FAIL: "Beyond a limit, with 95 % confidence.",
}
BARS = {"accuracy_loss": "accuracy", "set_size_growth": "sets"}
SHORT = {"accuracy_loss": "accuracy -{:.1f} points", "set_size_growth": "sets +{:.2f} options", "reliable": "cannot be trusted"}
BAR_LIMIT, BAR_LOW, BAR_HIGH = 25.0, -40.0, 80.0  # where the limit stands, and the ends of a bar; no change is at 0
LIMITS: Mapping[str, Callable[[float], str]] = {
    "accuracy_loss": lambda limit: f"loses at most {100 * limit:g} points of accuracy",
    "set_size_growth": lambda limit: f"has prediction sets that grow by at most {limit:g} options on average",
    "coverage_after_transfer": lambda limit: f"still covers {100 * limit:g} % under the dense model's threshold",
}


@dataclass(frozen=True)
class Card:
    """One compressed model. `checks` are the gate's records over all its runs; `why` says in one sentence how it ended so."""

    model: str
    method: str
    level: str
    result: str
    why: str
    checks: Sequence[Record]

    @property
    def name(self) -> str:
        """Method and level in one."""
        return self.method if self.level == "-" else f"{self.method} {self.level}"

    @property
    def short(self) -> str:
        """What a limit was broken by, in a few words; empty where none is."""
        broken = {check["check"]: check for check in sorted(self.checks, key=lambda c: c["amount"] or 0) if check["result"] == FAIL}
        said = []
        for name, check in broken.items():
            amount = check["amount"]
            words = SHORT.get(name, name.replace("_", " "))
            said.append(words.format(100 * amount if name == "accuracy_loss" else amount))
        return ", ".join(said)

    @property
    def bars(self) -> list[Record]:
        """The checks that a bar can show, each with how near its interval comes to its limit, in limits."""
        shown = [check for check in self.checks if check["check"] in BARS and check["amount_low"] is not None]
        return [check | {"nearness": check["amount_high"] / max(check["limit"], 1e-9), "bar": _bar(check)} for check in shown]


def cards(study: Study) -> list[Card]:
    """Return one card per compressed model that has a dense run, those that may ship first."""
    question = study.asked.questions[0]
    found = []
    for cells in _models(study.cells[question.protocol]):
        checks = check_pairs(cells, question, study.asked.limits)
        row = cells[0].row
        result = outcome(checks)
        found.append(Card(row["model"], row["method"], row["level"], result, _why(result, checks), checks))
    return sorted(found, key=lambda card: RANK[card.result])


def policy_words(limits: Sequence[Limit]) -> str:
    """Return what the gate asks of a compressed model, as the end of a sentence."""
    said = []
    for limit in limits:
        where = f" on {limit.task}" if limit.task else " in every subject" if limit.worst_subject else ""
        words = LIMITS.get(limit.figure)
        said.append((words(limit.value) if words else f"keeps {limit.figure.replace('_', ' ')} within {limit.value:g}") + where)
    return ", and ".join(said)


def _models(cells: Sequence[Paired]) -> Iterator[list[Paired]]:
    """The cells of each compressed model that has a dense run, in reading order."""

    def key(cell: Paired) -> tuple[str, str, str]:
        return cell.row["model"], cell.row["method"], cell.row["level"]

    order: dict[tuple[str, str, str], int] = {}
    for cell in cells:
        order.setdefault(key(cell), len(order))
    for _, group in groupby(sorted(cells, key=lambda cell: order[key(cell)]), key=key):
        model = list(group)
        if any(cell.before for cell in model):
            yield model


def _why(result: str, checks: Sequence[Record]) -> str:
    if result == PASS:
        return f"Every limit is kept: {_worst(checks)}."
    deciding = [check for check in checks if check["result"] == result]
    first = max(deciding, key=lambda check: abs((check["amount"] or 0) - (check["limit"] or 0)) / max(abs(check["limit"] or 0), 1e-9))
    more = len(deciding) - 1
    rest = f" ({more} more check{'s' if more > 1 else ''} like this)" if more else ""
    if result == FAIL:
        return f"{_said(first)}{rest}."
    return f"{_said(first)}{rest}.{_would_decide(deciding)}"


def _would_decide(checks: Sequence[Record]) -> str:
    """How many questions would decide, of two digits: it is an estimate."""
    needed = max((check["items_needed"] or 0 for check in checks), default=0)
    if needed > HOPELESS:
        return " It is so close to the limit that more questions would hardly decide."
    return f" About {float(f'{needed:.2g}'):,.0f} questions would decide." if needed else ""


def _worst(checks: Sequence[Record]) -> str:
    """The largest upper end of each figure: what even the most cautious reading leaves."""
    said = []
    for name in ("accuracy_loss", "set_size_growth"):
        ends = [check["amount_high"] for check in checks if check["check"] == name and check["amount_high"] is not None]
        highest = max(ends, default=None)
        if highest is not None:
            amount = f"{100 * highest:.1f} points of accuracy lost" if name == "accuracy_loss" else f"{highest:.2f} options added to a set"
            said.append(amount)
    return "at the very most " + " and ".join(said) if said else f"all {len(checks)} checks pass"


def _said(check: Record) -> str:
    """One check in words, its interval and its limit."""
    where = f" on {check['task']}" + (f", {check['subject']}" if check["subject"] else "")
    if check["amount"] is None or check["amount_low"] is None or check["check"] not in BARS:
        return f"{title(check)}{where}: {sentence(check)}"
    times, unit, digits = (100, " points", 1) if check["check"] == "accuracy_loss" else (1, " options", 2)
    amount, low, high = (f"{times * check[name]:.{digits}f}" for name in ("amount", "amount_low", "amount_high"))
    what = "Accuracy falls by" if check["check"] == "accuracy_loss" else "Sets grow by"
    allowed = "at most" if check["result"] == FAIL else "which may or may not be more than the allowed"
    limit = f"{times * check['limit']:g}"
    if check["result"] == FAIL:
        return f"{what} {amount}{unit} [{low} to {high}]{where}; {allowed} {limit} is allowed"
    return f"{what} {amount}{unit} [{low} to {high}]{where}, {allowed} {limit}"


def _bar(check: Record) -> dict[str, float]:
    """Where the bar of a check begins, how wide it is, and where its limit stands; what lies outside is cut off."""
    scale = BAR_LIMIT / max(check["limit"], 1e-9)
    low, high = (min(max(scale * check[name], BAR_LOW), BAR_HIGH) for name in ("amount_low", "amount_high"))
    return {"low": round(low, 2), "width": round(max(high - low, 1.5), 2), "limit": BAR_LIMIT}
