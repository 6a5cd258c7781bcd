"""The forms in which people write items, read as one: options as a list, a mapping or columns, answers as letters, numbers or texts.

In: rows with keys or columns, and which of them have question, choices and answer.  Out: documents in the form of `schemas.items`, and the
problems by row. How answers are written is found out from all rows together; where two ways fit, the file is refused and never guessed.
"""

from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from string import ascii_lowercase, ascii_uppercase
from typing import Any, NamedTuple

from schemas.errors import UsageError
from schemas.json_text import parse_json

QUESTION, CHOICES, ANSWER = "question", "choices", "answer"
NEEDED, OPTIONAL = (QUESTION, CHOICES, ANSWER), ("context", "subject", "id", "source")
NUMBERED = ("numbers from 0", "numbers from 1")
FEWEST, MOST = 2, len(ascii_uppercase)
SHOWN = 60  # characters of a value that a message quotes
EXACT = 2**53  # below this a float holds every whole number


class Columns(NamedTuple):
    """The columns or keys of each part of an item (several for choices only), and from which number answers count, None if that is open."""

    parts: Mapping[str, Sequence[str]]
    base: int | None = None


class Options(NamedTuple):
    """Texts of a row's options, their labels where the row has them, and what is wrong with them."""

    texts: list[Any]
    labels: list[str]
    problem: str = ""


class Forms(NamedTuple):
    """Rows as documents, None for a row that has a problem; problems by row; and the problem of all answers together."""

    documents: list[dict[str, Any] | None]
    problems: dict[int, str]
    of_all: str = ""


def columns_of(text: str, known: Sequence[str]) -> Columns:
    """Return the columns that a text such as "question=stem,choices=a+b+c+d,answer=key" names among the known ones.

    A part that is not mentioned has the column of its name; choices may also stand in columns A, B, and so on. `answer=key:1` says that
    answers count from 1, `:0` from 0. Raises UsageError for a part that items do not have, and for a column that is missing.
    """
    stated: dict[str, list[str]] = {}
    base = None
    for pair in filter(None, text.split(",")):
        part, equals, value = pair.strip().partition("=")
        if part not in (*NEEDED, *OPTIONAL) or not equals or not value or part in stated:
            raise UsageError(f"--columns {pair!r}: expected each of {', '.join((*NEEDED, *OPTIONAL[:3]))} once, as in question=stem")
        if part == ANSWER and value not in known and value[-2:] in (":0", ":1"):
            value, base = value[:-2], int(value[-1])
        stated[part] = [value] if part != CHOICES or value in known else value.split("+")
    lettered = [letter for letter in ascii_uppercase if letter in known]
    parts = {part: [part] for part in (*NEEDED, *OPTIONAL) if part in known}
    if CHOICES not in known and lettered:
        parts[CHOICES] = list(ascii_uppercase[: 1 + ascii_uppercase.index(lettered[-1])])
    parts |= stated
    absent = [part for part in NEEDED if part not in parts and not (part == QUESTION and "context" in parts)]
    needed = [*absent, *(column for columns in parts.values() for column in columns)]
    if missing := [column for column in needed if column not in known]:
        named = ", ".join(map(repr, dict.fromkeys(missing)))
        raise UsageError(f"no column {named} among {', '.join(known)[:300]}; say which are which with --columns")
    return Columns(parts, base)


def read_forms(rows: Sequence[Mapping[str, Any]], columns: Columns) -> Forms:
    """Return the rows as documents. The answers of all rows must be written in one way, each naming one of its row's options."""
    values = [{part: as_meant(row.get(names[0])) for part, names in columns.parts.items() if part != CHOICES} for row in rows]
    options = [_options([row.get(name) for name in columns.parts[CHOICES]]) for row in rows]
    problems = {number: each.problem for number, each in enumerate(options) if each.problem}
    problems |= {number: "has no answer" for number, value in enumerate(values) if value[ANSWER] in (None, "") and number not in problems}
    readable = [number for number in range(len(rows)) if number not in problems]
    answers = _answers([values[number][ANSWER] for number in readable], [options[number] for number in readable], columns.base)
    documents: list[dict[str, Any] | None] = [None] * len(rows)
    if answers.problem:
        return Forms(documents, dict(sorted(problems.items())), answers.problem)
    for number, index in zip(readable, answers.indices, strict=True):
        if index is None:
            problems[number] = _no_option(values[number][ANSWER], options[number], answers.read_as)
        else:
            fields = {part: value for part, value in values[number].items() if value is not None}
            choices = dict(zip(ascii_uppercase, options[number].texts, strict=False))
            documents[number] = fields | {CHOICES: choices, ANSWER: ascii_uppercase[index]}
    return Forms(documents, dict(sorted(problems.items())))


def as_meant(value: Any) -> Any:
    """Return a value of a file, a whole number that is stored as a float as an int: pandas makes floats of integers beside a blank."""
    if isinstance(value, float | Decimal) and value % 1 == 0 and -EXACT < value < EXACT:
        return int(value)
    return value


class _Answers(NamedTuple):
    """The index of each row's answer, None where it is none of its options; how the answers are read; the problem of all together."""

    indices: list[int | None]
    read_as: str
    problem: str = ""


def _options(cells: Sequence[Any]) -> Options:
    """Return the options of a row: from several columns, a list, a mapping, or either as JSON text; empty ones at the end are none."""
    labels: list[str] = []
    value = cells[0] if len(cells) == 1 else list(cells)
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            value = parse_json(value)
        except ValueError as error:
            return Options([], [], f"choices are not JSON: {error}")
    if isinstance(value, Mapping) and {"text", "label"} <= set(value):  # as ARC has them
        labels, value = [str(as_meant(label)) for label in value["label"]], value["text"]
    elif isinstance(value, Mapping):
        labels, value = [str(label) for label in value], list(value.values())
        if len(labels) <= MOST and labels not in _series(len(labels)):
            return Options([], [], f"has options {labels[:MOST]}; expected {list(ascii_uppercase[: len(labels)])} in order")
    elif value is not None and not isinstance(value, list | tuple):
        return Options([], [], f'choices are a {type(value).__name__}; expected a list such as ["Mars", "Jupiter"]')
    texts = list(map(as_meant, value or []))
    while texts and texts[-1] is None:
        texts.pop()
    return Options(texts, labels, _options_problem(texts))


def _options_problem(texts: Sequence[Any]) -> str:
    if not texts:
        return "has no options, so no model can answer it"
    if odd := [index for index, each in enumerate(texts) if each is None or isinstance(each, list | tuple | Mapping | bool)]:
        what = "empty, and there are options after it" if texts[odd[0]] is None else f"a {type(texts[odd[0]]).__name__}; expected a text"
        return f"option {odd[0] + 1} is {what}"
    return "" if FEWEST <= len(texts) <= MOST else f"has {len(texts)} option{'s' * (len(texts) != 1)}; expected {FEWEST} to {MOST}"


def _series(number: int) -> list[list[str]]:
    """Return the names that so many options may have in a mapping: A, B, ..., a, b, ..., 0, 1, ..., or 1, 2, ..."""
    counted = [[str(first + index) for index in range(number)] for first in (0, 1)]
    return [list(ascii_uppercase[:number]), list(ascii_lowercase[:number]), *counted]


def _answers(values: Sequence[Any], options: Sequence[Options], base: int | None) -> _Answers:
    """Return the answers in the one way of writing that fits all rows, else in the way that fits most."""
    written = ["" if isinstance(value, bool) or value is None else str(value).strip() for value in values]
    readings = {f"numbers from {base}": _number(base)} if base is not None else READINGS
    indices_by_reading = {how: [read(value, each) for value, each in zip(written, options, strict=True)] for how, read in readings.items()}
    fits = {how: len(indices) - indices.count(None) for how, indices in indices_by_reading.items()}
    if LABELS in indices_by_reading and 2 * fits[LABELS] > len(values):  # what the rows themselves call their options decides
        return _Answers(indices_by_reading[LABELS], LABELS)
    fitting = {how: indices for how, indices in indices_by_reading.items() if fits[how] == len(values)}
    if len({tuple(indices) for indices in fitting.values()}) > 1:
        more = "; say answer=COLUMN:0 or answer=COLUMN:1 in --columns" if set(NUMBERED) & set(fitting) else ""
        return _Answers([], "", f"its answers can be {' or '.join(fitting)}, which are other options{more}")
    best = max(indices_by_reading, key=lambda how: fits[how])
    return _Answers(indices_by_reading[best], f"{best}, which those of {fits[best]} of {len(values)} rows are" if fits[best] else "")


def _no_option(answer: Any, options: Options, read_as: str) -> str:
    texts = [str(text).strip() for text in options.texts]
    if (repeated := texts.count(str(answer).strip())) > 1:
        return f"answer {str(answer)[:SHOWN]!r} is the text of {repeated} of its options; write a letter"
    listed = f"options {', '.join(options.labels)}" if options.labels else f"{len(texts)} options"
    return f"answer {str(answer)[:SHOWN]!r} is none of its {listed}{f'; read as {read_as}' if read_as not in ('', LABELS) else ''}"


def _number(base: int) -> Callable[[str, Options], int | None]:
    def read(value: str, options: Options) -> int | None:
        number = int(value) - base if value.isascii() and value.isdigit() and len(value) < 4 else -1
        return number if 0 <= number < len(options.texts) else None

    return read


def _label(value: str, options: Options) -> int | None:
    return options.labels.index(value) if options.labels[: len(options.texts)].count(value) == 1 else None


def _letter(value: str, options: Options) -> int | None:
    letters = ascii_uppercase[: len(options.texts)] if value.isupper() else ascii_lowercase[: len(options.texts)]
    return letters.index(value) if len(value) == 1 and value in letters else None


def _text(value: str, options: Options) -> int | None:
    texts = [str(text).strip() for text in options.texts]
    return texts.index(value) if texts.count(value) == 1 else None


LABELS = "labels of the choices"
READINGS: Mapping[str, Callable[[str, Options], int | None]] = {
    LABELS: _label,
    "letters": _letter,
    "texts of choices": _text,
    NUMBERED[0]: _number(0),
    NUMBERED[1]: _number(1),
}
