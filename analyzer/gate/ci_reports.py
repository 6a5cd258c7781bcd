"""The release gate's result for other readers: JUnit XML and Markdown for CI, `model-index` YAML for a model card on the Hub."""

import json
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import Any

from analyzer.gate.gate import FAIL, INCONCLUSIVE, PASS, outcome
from analyzer.measure.records import Record
from analyzer.tables.markup import piped

MARKS = {PASS: "pass", FAIL: "**fail**", INCONCLUSIVE: "*inconclusive*"}
CARD_METRICS = {"accuracy": "Accuracy", "coverage": "Coverage of prediction sets", "set_size": "Mean prediction-set size"}


def junit(records: Sequence[Record]) -> str:
    """Return JUnit XML: a suite per compressed run, a case per check; an inconclusive check is an error, since it shows nothing."""
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
    ET.indent(root)
    return ET.tostring(root, encoding="unicode", xml_declaration=True) + "\n"


def markdown(records: Sequence[Record]) -> str:
    """Return a summary for a CI page: the outcome, then every check that did not pass, then how many did."""
    result = outcome(records)
    open_checks = [record for record in records if record["result"] != PASS]
    lines = [f"## Release gate: {MARKS[result]}", "", f"{len(records) - len(open_checks)} of {len(records)} checks pass."]
    if open_checks:
        rows = [(check["run"], title(check), MARKS[check["result"]], sentence(check)) for check in open_checks]
        lines += ["", *piped(("run", "check", "result", "why"), rows)]
    return "\n".join([*lines, "", f"Snapshot `{records[0]['snapshot']}`.", ""])


def model_index(records: Sequence[Record], results: Sequence[Record]) -> str:
    """Return the `model-index` YAML of a model card: one result per compressed run, scorer and alpha, with how the gate ended.

    records : of the gate.  results : of `compare`, the same runs.
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
    more = f"; about {needed:,} items would decide" if outcome(records) == INCONCLUSIVE and needed else ""
    return f"gate: {outcome(records)} ({', '.join(f'{count} {result}' for result, count in counts.items())}){more}"


def title(record: Record) -> str:
    """Return the name of a check, with its subject, scorer and alpha."""
    subject = f" in {record['subject']}" if record["subject"] else ""
    sets = f" ({record['scorer']}, alpha {record['alpha']:g})" if record["alpha"] is not None else ""
    return f"{record['check']}{subject}{sets}"


def sentence(record: Record) -> str:
    """Return why a check ended as it did."""
    if record["limit"] is None:
        return record["reason"] or "no problem was found"
    if record["amount"] is None:
        return f"there is no value to compare with the limit {record['limit']:g}"
    interval = f" [{record['amount_low']:.4g}, {record['amount_high']:.4g}]" if record["amount_low"] is not None else ""
    needed = f"; about {record['items_needed']:,} items would decide" if record["items_needed"] else ""
    return f"{record['amount']:.4g}{interval}, limit {record['limit']:g}{needed}"


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
