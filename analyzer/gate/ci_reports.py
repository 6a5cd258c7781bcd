"""The release gate's result in other forms: JUnit XML and Markdown for CI, `.eval_results` YAML for the Hub."""

import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib.metadata import version
from itertools import groupby

import numpy as np

from analyzer.gate.gate import FAIL, INCONCLUSIVE, NOT_JUDGED, PASS, SUPERSEDED, TAIL, outcome, questions_repeat
from analyzer.measure.records import Record
from analyzer.tables.cautions import dependent, noted
from analyzer.tables.markup import piped
from schemas.benchmark import BENCHMARK
from schemas.errors import UsageError
from store.shown import json_text

MARKS = {PASS: "pass", FAIL: "**fail**", INCONCLUSIVE: "*inconclusive*", NOT_JUDGED: "not judged"}
ELEMENTS = {FAIL: "failure", INCONCLUSIVE: "error", NOT_JUDGED: "skipped"}  # of JUnit
UNPLANNED = (
    "Asking again with more items makes a wrong answer more likely: 20 such looks pass up to 12 % of the models at a limit instead of "
    f"{100 * TAIL:g} %. Plan further looks under [looks] in the policy, for new items."
)
ESTIMATED = (
    "How many items are needed is an estimate: so many decide in 80 % of cases if the figure stays as it is now; "
    "the range is for a figure one standard error away."
)
REPEAT = (
    "How many items would decide is not said where many repeat a question: more of the same source may add few new questions. "
    "If each item was drawn independently, `--cluster item` counts every one."
)
NARROW = 0.1  # of a number of items: a range as narrow says nothing that "about" does not
JUDGED = ("model", "method", "level", "task", "prompt")  # what a run is called by in a report
MADE = ("compared_with", "n_items", "made", "libraries", "snapshot")  # what it was judged by and how it was made
HUB_DATA_SET = "ErikYip/LLM-Uncertainty-Bench"  # contains the published tasks


def junit(records: Sequence[Record]) -> str:
    """Return JUnit XML with one suite per compressed run and one case per check; an inconclusive check is an error, not a failure.

    A run that was not judged is skipped. A suite's properties name what was judged, its items, snapshot and version.
    """
    root = ET.Element("testsuites", name="hedgemark gate")
    for run, group in groupby(records, key=lambda record: record["run"]):
        checks = list(group)
        counts = {"failures": FAIL, "errors": INCONCLUSIVE, "skipped": NOT_JUDGED}
        numbers = {name: str(sum(check["result"] == result for check in checks)) for name, result in counts.items()}
        suite = ET.SubElement(root, "testsuite", {"name": run, "tests": str(len(checks)), **numbers})
        properties = ET.SubElement(suite, "properties")
        about = {name: checks[0][name] for name in (*JUDGED, *MADE)} | {"version": tool()}
        for name, value in about.items():
            ET.SubElement(properties, "property", name=name, value=str(value))
        for check in checks:
            case = ET.SubElement(suite, "testcase", classname=run, name=title(check))
            if check["result"] != PASS:
                ET.SubElement(case, ELEMENTS[check["result"]], message=sentence(check), type=check["result"])
        passed = [f"{title(check)}: {sentence(check)}" for check in checks if check["result"] == PASS]
        ET.SubElement(suite, "system-out").text = "\n".join(
            [*filter(None, (correction(checks), again(checks))), *dependent(checks), *noted(checks), *passed]
        )
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def markdown(records: Sequence[Record]) -> str:
    """Return a Markdown summary for CI: outcome, number of passed checks, failed checks first, error probabilities, version."""
    n_passed = sum(record["result"] == PASS for record in records)
    n_judged = sum(record["result"] != NOT_JUDGED for record in records)
    lines = [f"## Release gate: {MARKS[outcome(records)]}", "", f"{n_passed} of {n_judged} checks pass."]
    lines += [f"{not_judged(records)}"] if not_judged(records) else []
    ordered = sorted(records, key=lambda record: bool(record["result"] == PASS))
    rows = [(*(check[name] for name in JUDGED), title(check), MARKS[check["result"]], sentence(check)) for check in ordered]
    runs = [f"- {line}" for line in _judged(records)]
    words = sentences(records) + dependent(records) + noted(records)
    lines += ["", *piped((*JUDGED, "check", "result", "why"), rows), "", *words, "", "Runs judged:", "", *runs, ""]
    lines += [f"Snapshot `{records[0]['snapshot']}`, {tool()}.", ""]
    return "\n".join(lines)


def _judged(records: Sequence[Record]) -> Iterable[str]:
    """Return for each run that was judged its name, the dense run it was compared with, its items, and when and with what it was made."""
    for check in {check["run"]: check for check in records if check["result"] != NOT_JUDGED}.values():
        made = f", made on {check['made']}" if check["made"] else ""
        libraries = f" with {check['libraries']}" if check["libraries"] else ""
        yield f"`{check['run']}`, compared with `{check['compared_with'] or 'no dense run'}`, {check['n_items']:,} items{made}{libraries}"


def tool() -> str:
    """Return the name and version of the program that judges."""
    return f"hedgemark {version('hedgemark')}"


def eval_results(records: Sequence[Record], results: Sequence[Record], data_sets: Mapping[str, str]) -> str:
    """Return a file for the folder `.eval_results` of a compressed model's repository on the Hub: an accuracy per run, scorer and alpha.

    The Hub has no field for prediction sets and the gate's outcome, so they are written to `notes`. JSON values are valid YAML.
    records : what `gate` returned.  results : what `compare` returned for the same runs.  data_sets : Hub data set by task.
    Raises UsageError unless exactly one compressed model is selected, since each has its own repository, and for a task without a data set.
    """
    by_run = {run: outcome(list(group)) for run, group in groupby(records, key=lambda record: record["run"])}
    judged = [record for record in results if by_run.get(record["run"], NOT_JUDGED) != NOT_JUDGED and record["accuracy"] is not None]
    if len(models := {(record["model"], record["method"], record["level"]) for record in judged}) != 1:
        raise UsageError(f"evaluation results are of one compressed model, and {len(models)} are selected; name model, method and level")
    known = dict.fromkeys(BENCHMARK, HUB_DATA_SET) | dict(data_sets)
    if missing := [record["task"] for record in judged if record["task"] not in known]:
        raise UsageError(f"task {missing[0]!r:.80} has no data set on the Hub that is known; say which with --hub-dataset TASK=OWNER/NAME")
    return "".join(_entry(record, known[record["task"]], by_run[record["run"]]) for record in judged)


def hub_data_set(text: str) -> tuple[str, str]:
    """Return the task and the data set of a text `TASK=OWNER/NAME`. Raises UsageError for any other text."""
    task, _, data_set = text.rpartition("=")
    if not task or data_set.count("/") != 1 or not all(data_set.split("/")):
        raise UsageError(f"--hub-dataset {text[:80]!r} is not TASK=OWNER/NAME, such as urn=me/urns")
    return task, data_set


def _entry(record: Record, data_set: str, gate_result: str) -> str:
    sets = f"{100 * (1 - record['alpha']):g} % prediction sets ({record['scorer']}) hold {_share(record['coverage'])} of the answers"
    size = "" if record["set_size"] is None else f" with {record['set_size']:.3g} options on average"
    notes = (
        f"accuracy of {record['method']} {record['level']}, prompt {record['prompt']}, {record['n_items']} questions; {sets}{size}; "
        f"Hedgemark release gate: {gate_result}; snapshot {record['snapshot']}"
    )
    task_entry = json_text({"id": data_set, "task_id": record["task"]})
    return f"- dataset: {task_entry}\n  value: {record['accuracy']:.6g}\n  notes: {json_text(notes)}\n"


def _share(value: float | None) -> str:
    return "an unknown share" if value is None else f"{100 * value:.3g} %"


def not_judged(records: Sequence[Record]) -> str:
    """Return which runs were not judged, and why: no matching dense run, or a larger run that is judged instead; "" if all were."""
    left_out = [record for record in records if record["result"] == NOT_JUDGED]
    names = list(dict.fromkeys(record["run"] for record in left_out if record["check"] != SUPERSEDED))
    which = f"{', '.join(names[:-1])} and {names[-1]} have" if len(names) > 1 else f"{''.join(names)} has"
    alone = [f"Not judged: {which} no matching dense run. Name one with --against."] if names else []
    smaller = [f"Not judged: {record['run']}, since {record['reason']}." for record in left_out if record["check"] == SUPERSEDED]
    return " ".join(alone + smaller)


def _plain(value: float) -> str:
    """Return a number with four digits and no exponent; what is next to 0 is 0, without a sign."""
    return np.format_float_positional(round(value, 6) + 0.0, precision=4, fractional=False, trim="-")


def _first_reason(records: Sequence[Record]) -> str:
    """Return why the first check of which nothing may be concluded is undecided, whatever the number of items; "" without one."""
    return next((f"{title(record)}: {record['reason']}" for record in records if record["result"] == INCONCLUSIVE and record["reason"]), "")


def last_line(records: Sequence[Record]) -> str:
    """Return the outcome in one line; if it is inconclusive, also how many items would decide it."""
    counts = {result: sum(record["result"] == result for record in records) for result in (PASS, FAIL, INCONCLUSIVE)}
    cheapest = would_decide(records) or _first_reason(records) if outcome(records) == INCONCLUSIVE else ""
    more = f"; {cheapest}" if cheapest else ""
    return f"gate: {outcome(records)} ({', '.join(f'{count} {result}' for result, count in counts.items())}){more}"


def sentences(records: Sequence[Record]) -> list[str]:
    """Return what is to be read with the checks: their errors, their intervals, and what it means to ask again."""
    said = (correction(records), intervals(records), needed(records), together(records), again(records))
    return [text for text in said if text]


def correction(records: Sequence[Record]) -> str:
    """Return a sentence about the error probabilities of the two ends of the printed intervals, which decide the checks."""
    counts = sorted({record["n_checks"] for record in records if record["limit"] is not None})
    if not counts:
        return ""
    among = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    failing = f"the {among} checks of a model fail it wrongly with at most {100 * TAIL:g} % together (Bonferroni)"
    failing = failing if counts[-1] > 1 else "it fails wrongly with at most as much"
    over = " over all looks" if any(record["looks"] for record in records) else ""
    return f"A check passes wrongly with a probability of at most {100 * TAIL:g} %{over}; {failing}."


def intervals(records: Sequence[Record]) -> str:
    """Return a sentence about why the intervals are others than those of `compare` for the same figures; "" where there are none."""
    if all(record["amount_low"] is None and record["amount_high"] is None for record in records):
        return ""
    shared = max(record["n_checks"] for record in records) > 1
    more = ", and one end shares its error with the other checks" if shared else ""
    return (
        "The intervals are those that decide, and mostly wider than the 95 % intervals of `analyze compare`: they also hold for few items "
        f"and for damage so rare that no item has shown it{more}."
    )


def needed(records: Sequence[Record]) -> str:
    """Return how sure the numbers of items that would decide are, and where none is said although one is wanted; "" where neither is so."""
    undecided = [record for record in records if record["result"] == INCONCLUSIVE and record["limit"] is not None]
    said = [ESTIMATED] if any(record["items_needed"] for record in records) else []
    return " ".join([*said, *([REPEAT] if any(map(questions_repeat, undecided)) else [])])


def again(records: Sequence[Record]) -> str:
    """Return a sentence about asking the gate again with more items: which planned look this is, or what asking unplanned would do."""
    checks = [record for record in records if record["limit"] is not None]
    undecided = [check for model in _by_model(records).values() if outcome(model) == INCONCLUSIVE for check in model]
    plans = sorted({record["looks"] for record in checks if record["looks"]})
    if not plans:
        return UNPLANNED if undecided else ""
    sentences = [f"Looks are planned at {plans[0]}."]
    taken = {(record["look"], record["n_looks"], record["n_items"], record["look_error"]) for record in checks if record["look"]}
    for look, of, n_items, error in sorted(taken):
        sentences.append(f"Look {look} of {of}, at {n_items:,} items, may err with {_percent(error)}, and its intervals are for that.")
    if undecided:
        sentences.append(next_look(undecided) or "This was the last look: its plan has no error left, so a new plan needs new items.")
    return " ".join(sentences)


def next_look(records: Sequence[Record], what: str = "items") -> str:
    """Return at how many items the plan has the next look of the undecided checks; "" if it has none."""
    counts = sorted({record["next_look"] for record in records if record["next_look"]})
    listed = " or ".join(f"{count:,}" for count in counts)
    return f"Look next at {listed} {what}, which the plan has error left for." if counts else ""


def _by_model(records: Sequence[Record]) -> dict[tuple[str, ...], list[Record]]:
    """Return the records of each compressed model that was judged."""
    by_model: dict[tuple[str, ...], list[Record]] = {}
    for record in (record for record in records if record["result"] != NOT_JUDGED):
        by_model.setdefault((record["model"], record["method"], record["level"]), []).append(record)
    return by_model


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def together(records: Sequence[Record]) -> str:
    """Return a sentence about the error probability over several compressed models together; "" for a single model or if none passes."""
    by_model = _by_model(records)
    n_models = len(by_model)
    if n_models < 2:
        return ""
    passed = [model for model, checks in by_model.items() if outcome(checks) == PASS]
    if not passed:
        return ""
    sure = sum(outcome(by_model[model], "result_together") == PASS for model in passed)
    every = min(TAIL * n_models, 1.0)
    return (
        f"{len(passed)} of {n_models} compressed models pass, each judged by itself: the probability that any of them passes wrongly is up "
        f"to {100 * every:.3g} %. {sure} still pass{'es' if sure == 1 else ''} if all {n_models} share {100 * TAIL:g} % (Bonferroni)."
    )


def title(record: Record) -> str:
    """Return the name of a check, with its subject, scorer and alpha."""
    subject = f" in {record['subject']}" if record["subject"] else ""
    sets = f" ({record['scorer']}, alpha {record['alpha']:g})" if record["alpha"] is not None else ""
    return f"{record['check']}{subject}{sets}"


def would_decide(records: Sequence[Record], what: str = "items", name: Callable[[Record], str] = title) -> str:
    """Return how many items would most cheaply decide a model: by one failing check, else by all checks passing; "" if unknown.

    name : what a check is called.
    """
    checks = [record for record in records if record["result"] == INCONCLUSIVE]
    failing = [check for check in checks if check["items_needed_to"] == FAIL]
    if failing:
        first = min(failing, key=lambda check: float(check["items_needed"]))
        return f"{_needed(first, what)}, most likely that {name(first)} fails"
    if not checks or any(check["items_needed_to"] is None for check in checks):
        return ""
    last = max(checks, key=lambda check: float(check["items_needed"]))
    return f"{_needed(last, what)}, most likely that {'all checks pass' if len(checks) > 1 else f'{name(last)} passes'}"


def _needed(record: Record, what: str = "items") -> str:
    """Return how many items a check needs, with the range of that number; for a check by subject, items of that subject."""
    low, high = record["items_needed_low"], record["items_needed_high"]
    between = f" ({low:,} to {high:,})" if high else f" ({low:,} or more)"
    between = "" if high and high - low <= NARROW * record["items_needed"] else between
    where = f"{what} of {record['subject']}" if record["subject"] else what
    return f"about {record['items_needed']:,} {where} would probably be enough to decide{between}"


def sentence(record: Record) -> str:
    """Return the reason for a check's result: its figure, the interval that decides, its limit and its look."""
    if record["limit"] is None:
        return record["reason"] or "no problem was found"
    if record["amount"] is None:
        return f"there is no value to compare with the limit {record['limit']:g}"
    low, high = record["amount_low"], record["amount_high"]
    interval = "" if low is None else f" [{_plain(low)}, ∞)" if high is None else f" [{_plain(low)}, {_plain(high)}]"
    worst = "" if record["worst_value"] is None else f", no item taken to exceed {record['worst_value']:g}"
    reason = f"; {record['reason']}" if record["reason"] else ""
    needed = f"; {_needed(record)}" if record["items_needed"] else ""
    if record["result"] == INCONCLUSIVE and not record["items_needed"] and not record["reason"]:
        why = "questions repeat too often" if questions_repeat(record) else "too near its limit"
        needed = f"; {why} to say how many items would decide"
    look = f", look {record['look']} of {record['n_looks']}" if record["look"] else ""
    following = f"; next look at {record['next_look']:,} items" if record["next_look"] else ""
    return f"{_plain(record['amount'])}{interval}, limit {record['limit']:g}{worst}{look}{reason}{needed}{following}"
