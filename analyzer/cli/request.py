"""Turn parsed options into a request: which runs of which store, how to analyse them, and how to print the result."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analyzer.measure.question import Question
from analyzer.protocols.ask import ASKED, ask
from schemas.fields import FIELDS


@dataclass(frozen=True)
class Request:
    """All options of a command, parsed.

    selection : accepted values by field (model, method, level, task, prompt); an empty list accepts all.
    form      : output format: table, json, csv, parquet, markdown or latex.
    """

    store_url: str
    at: str | None
    selection: Mapping[str, Sequence[str]]
    question: Question
    form: str


def parse_request(options: Mapping[str, Any]) -> Request:
    """Return the request for parsed options. Raises UsageError that quotes the invalid value."""
    selection = {field: options[field] for field in FIELDS}
    question = ask(**{name: options[name] for name in ASKED if name in options})
    return Request(options["store_url"], options["at"], selection, question, options["form"])
