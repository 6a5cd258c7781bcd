"""The release gate's result in other forms: JUnit XML and Markdown for CI, `model-index` YAML for a model card on the Hub."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from analyzer.gate.gate import FAIL, INCONCLUSIVE, PASS, TAIL, outcome
from analyzer.measure.records import Record
from analyzer.tables.markup import piped

MARKS = {PASS: "pass", FAIL: "**fail**", INCONCLUSIVE: "*inconclusive*"}
CARD_METRICS = {"accuracy": "Accuracy", "coverage": "Coverage of prediction sets", "set_size": "Mean prediction-set size"}


def junit(records: Sequence[Record]) -> str:
    """Return JUnit XML with one suite per compressed run and one case per check; an inconclusive check is an error, not a failure."""
    root = ET.Element("testsuites", name="hedgemark gate")
    for run, group in groupby(records, key=lambda record: record["run"]):
        checks = list(group)
        counts = {"failures": FAIL, "errors": INCONCLUSIVE}
        numbers = {name: str(sum(check["result"] == result for check in checks)) for name, result in counts.items()}
        suite = ET.SubElement(root, "testsuite", {"name": run, "tests": str(len(checks)), **numbers})
        for check in checks:
            case = ET.SubElement(suite, "testcase", classname=run, name=title(check))
            if check["result"] != PASS:
                ET.SubElement(case, "failure" if check["result"] == FAIL else "error", message=sentence(check), type=check["result"])
        passed = [f"{title(check)}: {sentence(check)}" for check in checks if check["result"] == PASS]
        ET.SubElement(suite, "system-out").text = "\n".join([correction(checks), *passed])
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def markdown(records: Sequence[Record]) -> str:
    """Return a Markdown summary for CI: outcome, number of passed checks, a table with failed checks first, and error probabilities."""
    n_passed = sum(record["result"] == PASS for record in records)
    lines = [f"## Release gate: {MARKS[outcome(records)]}", "", f"{n_passed} of {len(records)} checks pass."]
    ordered = sorted(records, key=lambda record: bool(record["result"] == PASS))
    rows = [(check["run"], title(check), MARKS[check["result"]], sentence(check)) for check in ordered]
    words = [text for text in (correction(records), together(records)) if text]
    lines += ["", *piped(("run", "check", "result", "why"), rows), "", *words, "", f"Snapshot `{records[0]['snapshot']}`.", ""]
    return "\n".join(lines)


def model_index(records: Sequence[Record], results: Sequence[Record]) -> str:
    """Return the `model-index` YAML of a model card: one result per compressed run, scorer and alpha, with the gate's outcome.

    records : what `gate` returned.  results : what `compare` returned for the same runs.
    """
    by_run = {run: outcome(list(group)) for run, group in groupby(records, key=lambda record: record["run"])}
    lines = ["model-index:"]
    judged = [record for record in results if record["run"] in by_run]
    for (model, method, level), group in groupby(judged, key=lambda record: (record["model"], record["method"], record["level"])):
        lines += [f"- name: {_text(' '.join(part for part in (model, method, level) if part != '-'))}", "  results:"]
        lines += [line for record in group for line in _result_lines(record, by_run[record["run"]])]
    return "\n".join(lines) + "\n"


def last_line(records: Sequence[Record]) -> str:
    """Return the outcome in one line, and how many items would decide an inconclusive one."""
    counts = {result: sum(record["result"] == result for record in records) for result in (PASS, FAIL, INCONCLUSIVE)}
    needed = max((record["items_needed"] or 0 for record in records), default=0)
    more = f"; about {needed:,} items would be enough to decide" if outcome(records) == INCONCLUSIVE and needed else ""
    return f"gate: {outcome(records)} ({', '.join(f'{count} {result}' for result, count in counts.items())}){more}"


def correction(records: Sequence[Record]) -> str:
    """Return a sentence about the error probabilities of the two ends of the printed intervals, which decide the checks."""
    counts = sorted({record["n_checks"] for record in records if record["limit"] is not None})
    if not counts:
        return ""
    among = f"{counts[0]}" if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    failing = f"the {among} checks of a model fail it wrongly with at most {100 * TAIL:g} % together (Bonferroni)"
    failing = failing if counts[-1] > 1 else "it fails wrongly with at most as much"
    return f"A check passes wrongly with a probability of at most {100 * TAIL:g} %; {failing}."


def together(records: Sequence[Record]) -> str:
    """Return a sentence about the error probability over several compressed models together; "" for a single model."""
    by_model: dict[tuple[str, ...], list[Record]] = {}
    for record in records:
        by_model.setdefault((record["model"], record["method"], record["level"]), []).append(record)
    n_models = len(by_model)
    if n_models < 2:
        return ""
    passed = [model for model, checks in by_model.items() if outcome(checks) == PASS]
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


def sentence(record: Record) -> str:
    """Return the reason for a check's result: its figure, interval and limit."""
    if record["limit"] is None:
        return record["reason"] or "no problem was found"
    if record["amount"] is None:
        return f"there is no value to compare with the limit {record['limit']:g}"
    low, high = record["amount_low"], record["amount_high"]
    interval = "" if low is None else f" [{low:.4g}, ∞)" if high is None else f" [{low:.4g}, {high:.4g}]"
    worst = "" if record["worst_value"] is None else f", no item taken to exceed {record['worst_value']:g}"
    reason = f"; {record['reason']}" if record["reason"] else ""
    needed = f"; about {record['items_needed']:,} items would be enough to decide" if record["items_needed"] else ""
    return f"{record['amount']:.4g}{interval}, limit {record['limit']:g}{worst}{reason}{needed}"


def _result_lines(record: Record, gate_result: str) -> Iterator[str]:
    task = _text(record["task"])
    settings = {name: record[name] for name in ("scorer", "alpha", "prompt", "n_items", "snapshot")}
    yield "  - task: {type: multiple-choice, name: Multiple-choice question answering}"
    yield f"    dataset: {{type: {task}, name: {task}, args: {json.dumps(settings, ensure_ascii=False)}}}"
    yield "    metrics:"
    for name, words in CARD_METRICS.items():
        if record[name] is not None:
            yield f"    - {{type: {name}, name: {_text(words)}, value: {record[name]:.6g}}}"
    yield f"    - {{type: release_gate, name: Hedgemark release gate, value: {gate_result}}}"


def _text(value: Any) -> str:
    return json.dumps(str(value), ensure_ascii=False)  # a JSON string is a YAML string
