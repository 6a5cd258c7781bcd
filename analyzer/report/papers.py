"""The report as tables for a paper: the main table, then pruning, quantization and sweeps, in Markdown or LaTeX."""

from collections import Counter
from collections.abc import Callable, Sequence

from analyzer.measure.records import Record
from analyzer.report.data.study import Study
from analyzer.report.data.tables import Tables, all_records, first_question_tables, tables
from analyzer.report.words import sentences
from analyzer.report.words.cards import cards, policy_words
from analyzer.studies.decoupling import method_kind
from analyzer.tables.columns import CLIFFS, COMPARE, FRONTIER, MONITOR
from analyzer.tables.latex import PACKAGES, escaped, latex
from analyzer.tables.markup import in_line, markdown
from analyzer.tables.terminal import Column
from schemas.run import DENSE

PRUNED, QUANTIZED = ("pruned", "pruned n:m"), ("weight-only", "weight and activation")
Section = tuple[str, list[Record], Sequence[Column]]


def paper(study: Study, form: str) -> str:
    """Return the report as text; `form` is md or latex."""
    named_tables = tables(study)
    return FORMS[form](study, named_tables, sections(study, named_tables))


def sections(study: Study, named_tables: Tables) -> list[Section]:
    """Return titles, records and columns; a table without compressed runs is left out."""
    records = all_records(study)
    chosen = [
        ("All runs", records),
        ("Pruning", _with_dense(records, lambda record: method_kind(record) in PRUNED)),
        ("Quantization", _with_dense(records, lambda record: method_kind(record) in QUANTIZED)),
    ]
    shown: list[Section] = [(title, rows, COMPARE) for title, rows in chosen if rows]
    shown += [("Frontier", named_tables["frontier"], FRONTIER)] if named_tables["pairs"] and named_tables["frontier"] else []
    swept, watched = _swept(named_tables["cliffs"]), named_tables["watch"]
    shown += [("Sweeps", swept, CLIFFS)] if swept else []
    return [*shown, ("Live questions", watched, MONITOR)] if watched else shown


def _markdown(study: Study, named_tables: Tables, shown: Sequence[Section]) -> str:
    policy = f"A compressed model may ship when it {policy_words(study.request.policy.limits)}, with 95 % confidence."
    paragraphs = ["# Hedgemark report", sentences.verdicts(cards(study)), policy]
    paragraphs += ["\n".join(f"- {in_line(sentence)}" for sentence in _sentences(study, named_tables))]
    for title, records, columns in shown:
        paragraphs += [f"## {title}", markdown(records, columns)]
    parameters = f" Parameters: {study.request.parameters}." if study.request.parameters else ""
    return "\n\n".join([*paragraphs, f"Snapshot `{study.runs.reader.snapshot}`.{parameters}"]) + "\n"


def _latex(study: Study, named_tables: Tables, shown: Sequence[Section]) -> str:
    lines = [PACKAGES, f"% snapshot {study.runs.reader.snapshot}", f"% {escaped(sentences.verdicts(cards(study)))}"]
    if study.request.parameters:
        lines.append(f"% parameters: {study.request.parameters}")
    for title, records, columns in shown:
        lines.append(latex(records, columns, title))
    return "\n\n".join(lines) + "\n"


FORMS: dict[str, Callable[[Study, Tables, Sequence[Section]], str]] = {"md": _markdown, "latex": _latex}


def _sentences(study: Study, named_tables: Tables) -> list[str]:
    if not study.runs.rows:
        return []
    first_tables = first_question_tables(named_tables, study.request.questions[0])
    writers = (
        sentences.heat_map, sentences.decoupling, sentences.cliffs, sentences.flips, sentences.scale, sentences.frontier,
        sentences.transfer, sentences.unreliable,
    )  # fmt: skip
    return [sentence(first_tables) for sentence in (*writers, *([sentences.watch] if study.request.watch is not None else []))]


def _with_dense(records: Sequence[Record], is_wanted: Callable[[Record], bool]) -> list[Record]:
    """Return the wanted compressed runs and the dense runs of their models, tasks and prompts; [] if there are none."""
    chosen = [record for record in records if record["method"] != DENSE and record["compared_with"] and is_wanted(record)]
    beside = {(record["model"], record["task"], record["prompt"]) for record in chosen}
    return [
        record
        for record in records
        if record in chosen or (record["method"] == DENSE and (record["model"], record["task"], record["prompt"]) in beside)
    ]


def _swept(records: Sequence[Record]) -> list[Record]:
    """Return the records of sweeps with more than one level."""
    counts = Counter(map(sentences.sweep_of, records))
    return [record for record in records if counts[sentences.sweep_of(record)] > 1]
