"""From parsed options to a study."""

from collections.abc import Mapping
from typing import Any

from analyzer.compare.two_axis_verdict import Tolerances, tolerances
from analyzer.gate.policy import Limit, read_policy
from analyzer.measure.question import Question
from analyzer.protocols.ask import ask
from analyzer.report.data.study import EXAMPLE_PRICES, Asked, Study, study
from analyzer.runs.loading import Runs, select_runs
from analyzer.studies.cost import read_prices
from schemas.errors import UsageError
from schemas.fields import FIELDS


def open_study(options: Mapping[str, Any]) -> Study:
    """Return the study that parsed options ask for. Raises UsageError quoting the value that cannot be meant."""
    return study(open_selected(options), asked(options))


def open_selected(options: Mapping[str, Any]) -> Runs:
    """Return the selected runs of a store, with the dense runs that they are compared with; none of a store that has none yet."""
    from store import open_reader

    reader = open_reader(options["store_url"], options["at"])
    wanted = {field: options[field] for field in FIELDS}
    return select_runs(reader, wanted, with_dense=True) if reader.catalog.height else Runs(reader, ())


def asked(options: Mapping[str, Any]) -> Asked:
    """Return what is asked of the runs."""
    allowed = tolerances(options)
    prices = read_prices(options["prices"]) if options["prices"] else EXAMPLE_PRICES
    questions = tuple(_question(name, options) for name in dict.fromkeys(options["protocols"] or ("exact",)))
    return Asked(questions, _limits(options, allowed), allowed, prices)


def _limits(options: Mapping[str, Any], allowed: Tolerances) -> list[Limit]:
    """The policy given, else the two tolerances: what counts as no change may ship."""
    texts = options["limits"]
    if not texts and not options["policy"]:
        texts = [f"accuracy_loss={allowed.accuracy}", f"set_size_growth={allowed.set_size}"]
    return read_policy(options["policy"], texts)


def _question(protocol: str, options: Mapping[str, Any]) -> Question:
    question = ask(alphas=options["alpha"], scorers=options["scorers"], protocol=protocol)
    if len(question.alphas) != 1:
        raise UsageError(f"alpha {options['alpha']!r} names {len(question.alphas)}; give one, the page's slider has the others")
    return question
