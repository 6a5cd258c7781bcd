"""docs/formats.md: every file that a user writes has an example that its reader takes, and a JSON Schema that says the same."""

import csv
import json
import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import jsonschema
import pytest

from analyzer.gate.policy import read_policy
from analyzer.predictor import Predictor
from analyzer.runs.clustering import parse_clustering
from analyzer.studies.cost import read_prices
from analyzer.studies.published_figures import read_published
from analyzer.studies.reference_file import read_reference
from analyzer.studies.weighted_conformal import read_mix
from analyzer.watch.live_log import read_log
from schemas.errors import HedgemarkError
from store.format.item_file import read_item_file
from store.importers.importer import Description
from store.importers.table import read_table

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "formats.md").read_text(encoding="utf-8")
FOLDER = ROOT / "schemas" / "json"


class _Letters(Predictor):
    """As much of a predictor as reading a log needs."""

    letters, subjects = ("A", "B", "C"), ()  # type: ignore[assignment]
    document = SimpleNamespace(parts=())  # type: ignore[assignment]

    def __init__(self) -> None: ...


def _prompts(path: Path) -> Any:
    pytest.importorskip("torch")
    from producer.prompts.templates import instruction_for

    return instruction_for("quiz", "task", path)


def _sweep(path: Path) -> Any:
    pytest.importorskip("torch")
    from producer.sweep.sweep_file import read_sweep

    return read_sweep(path, {})


def _recipe(path: Path) -> Any:
    pytest.importorskip("torch")
    from producer.methods.shared.recipe_file import read_recipe

    return read_recipe(str(path))


READERS: dict[str, Callable[[Path], Any]] = {
    "items": read_item_file,
    "prompts": _prompts,
    "sweep": _sweep,
    "recipe": _recipe,
    "policy": lambda path: read_policy(path, []),
    "prices": read_prices,
    "mix": read_mix,
    "clusters": lambda path: parse_clustering(f"{path}:template"),
    "published": read_published,
    "reference": read_reference,
    "logits-table": lambda path: list(read_table(path, Description("m", "dense", "", "quiz", "base"))),
    "live-log": lambda path: read_log(path, _Letters()),
}


def sections() -> dict[str, list[tuple[str, str]]]:
    """Return (language, text) of the examples of each kind of file on the page, by the name of its schema."""
    found = {}
    for section in PAGE.split("\n## ")[1:]:
        [name] = re.findall(r"Schema: \[[\w-]+\]\(\.\./schemas/json/([\w-]+)\.json\)", section)
        found[name] = re.findall(r"```(json|toml|csv)\n(.*?)```", section, re.DOTALL)
    return found


def value_of(language: str, text: str) -> Any:
    if language == "csv":
        rows = list(csv.DictReader(text.splitlines()))
        return [{name: value or None if name not in ("level", "answer") else value for name, value in row.items()} for row in rows]
    return tomllib.loads(text) if language == "toml" else json.loads(text)


def schema(name: str) -> dict[str, Any]:
    value: dict[str, Any] = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(value)
    return value


def takes(name: str, value: Any) -> bool:
    return bool(jsonschema.Draft202012Validator(schema(name)).is_valid(value))


def test_every_kind_of_file_has_a_section_a_schema_and_a_reader() -> None:
    """None of the three is forgotten, and every section has an example."""
    assert set(sections()) == set(READERS) == {path.stem for path in FOLDER.iterdir()}
    assert all(sections().values())


@pytest.mark.parametrize("name", READERS)
def test_examples_are_taken_by_schema_and_reader(tmp_path: Path, name: str) -> None:
    """What the page shows can be copied."""
    for language, text in sections()[name]:
        path = tmp_path / f"example.{language}"
        path.write_text(text, encoding="utf-8")
        assert takes(name, value_of(language, text)), name
        assert READERS[name](path)


@pytest.mark.producer
def test_shipped_schemas_are_those_of_the_models() -> None:
    """A key that a model gains is in its schema; `PYTHONPATH=tests/support python tests/support/json_schemas.py` writes them again."""
    pytest.importorskip("torch")
    from json_schemas import FROM_MODELS, text_of

    assert {name: (FOLDER / f"{name}.json").read_text(encoding="utf-8") for name in FROM_MODELS} == {
        name: text_of(name) for name in FROM_MODELS
    }


WRONG = {
    "policy": ["[limits]\naccuracy_los = 0.1", "[limit]\nkl = 1", "[worst_subject]\nset_size_growth = 1", "[worst_value]\nflips = 1",
               "[limits]\nkl = 1\n[looks]\nitems = []", '[limits]\nkl = 1\n[looks]\nitems = [5]\nspending = "all"'],
    "prices": ["[prices]\nanswers = 1", "[prices]\nreview = 'dear'", "[prices]\nreview = 1\n[rules]\nask_again_up_to = 0"],
    "mix": ["[subject]\nlaw = 1", "law = 1", "[subjects]\nlaw = 'half'"],
    "prompts": ["share = 'x'", "shared = 1", "[task]\nmmlu = 3"],
    "sweep": ["modle = 'x'", "model = 3", "[[sweep]]\nlevel = [0.5]\nmodel = 'ref-s'", "model = 'ref-s'\nlimit = '5'", "model = []"],
}  # fmt: skip


@pytest.mark.parametrize(("name", "text"), [(name, text) for name, texts in WRONG.items() for text in texts])
def test_what_a_schema_refuses_the_reader_refuses(tmp_path: Path, name: str, text: str) -> None:
    """Unknown keys and values of another type are wrong to both."""
    (tmp_path / "wrong.toml").write_text(text, encoding="utf-8")
    assert not takes(name, tomllib.loads(text))
    with pytest.raises(HedgemarkError):
        READERS[name](tmp_path / "wrong.toml")


@pytest.mark.parametrize(
    "row",
    [
        {"question": "q", "choices": ["x"], "answer": "A"},
        {"choices": ["x", "y"], "answer": "A"},
        {"question": "q", "choices": ["x", "y"]},
        {"question": "q", "A": "x", "answer": "A"},
        {"question": "q", "choices": ["x", ["y"]], "answer": "A"},
    ],
)
def test_items_that_the_schema_refuses_are_refused(tmp_path: Path, row: dict[str, Any]) -> None:
    """One option, no question, no answer, and an option that is no text."""
    (tmp_path / "wrong.json").write_text(json.dumps([row]), encoding="utf-8")
    assert not takes("items", [row])
    with pytest.raises(HedgemarkError):
        read_item_file(tmp_path / "wrong.json")
