"""From parsed options to what is asked: which runs of which store, which question, printed how."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analyzer.measure.question import Question
from analyzer.protocols.ask import ASKED, ask
from schemas.fields import FIELDS


@dataclass(frozen=True)
class Request:
    """What a command line asks.

    wanted : accepted values by field (model, method, level, task, prompt); an empty list accepts all.
    form   : how to print: table, json, csv, parquet, markdown or latex.
    """

    store_url: str
    at: str | None
    wanted: Mapping[str, Sequence[str]]
    question: Question
    form: str


def request(options: Mapping[str, Any]) -> Request:
    """Return what parsed options ask. Raises UsageError quoting the value that cannot be meant."""
    wanted = {field: options[field] for field in FIELDS}
    question = ask(**{name: options[name] for name in ASKED if name in options})
    return Request(options["store_url"], options["at"], wanted, question, options["form"])
