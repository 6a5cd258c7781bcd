"""The Python API answers as the commands do, option by option: one `ask` serves both."""

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from analyzer_data import item_set, make_run, skilled_logits
from click.testing import CliRunner
from store_tiny import write_runs

import analyzer.api
from analyzer.api import ask, compare, sets
from analyzer.cli.main import main
from schemas.errors import UsageError
from store import init_store

# Option of the command line -> (its words, the same as an argument). A test below asks for one of every option that `ask` takes.
OPTIONS: dict[str, tuple[list[str], dict[str, Any]]] = {
    "alphas": (["--alpha", "0.05", "--alpha", "1/4"], {"alphas": [0.05, "1/4"]}),
    "scorers": (["--scorer", "raps", "--scorer", "lac"], {"scorers": ["raps", "lac"]}),
    "parameters": (["--scorer", "raps", "--parameter", "raps.penalty=0.3"], {"scorers": "raps", "parameters": {"raps": {"penalty": 0.3}}}),
    "split": (["--split", "7"], {"split": 7}),
    "stratify": (["--split", "seed:3", "--stratify"], {"split": "seed:3", "stratify": True}),
    "calibration_fraction": (["--calibration-fraction", "0.3"], {"calibration_fraction": 0.3}),
    "protocol": (["--protocol", "ye2024"], {"protocol": "ye2024"}),
    "empty": (["--empty", "top1"], {"empty": "top1"}),
    "reliability": (["--split", "3", "--reliability", "temperature"], {"split": "3", "reliability": "temperature"}),
    "by": (["--by", "label"], {"by": "label"}),
    "mondrian": (["--mondrian", "subject"], {"mondrian": "subject"}),
    "sizes": (["--sizes"], {"sizes": True}),
    "quantiles": (["--quantiles"], {"quantiles": True}),
}


@pytest.fixture(scope="module")
def store_address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dense run and a noisier one of 90 items in three subjects."""
    address = str(tmp_path_factory.mktemp("api") / "store")
    init_store(address)
    rng = np.random.default_rng(0)
    answers = rng.integers(0, 4, 90)
    items, logits = item_set(answers, subjects=3), skilled_logits(rng, answers, 4)
    noisy = logits + rng.normal(size=logits.shape).astype(np.float32)
    write_runs(address, items, [make_run(items, logits), make_run(items, noisy, method="wanda", level="0.5")])
    return address


def test_every_option_is_compared() -> None:
    """No option that `ask` takes is left out of the comparison below."""
    assert set(OPTIONS) == set(inspect.signature(ask).parameters)


@pytest.mark.parametrize("option", OPTIONS)
def test_sets_are_those_of_the_command(option: str, store_address: str) -> None:
    """`analyze sets` with an option prints what `sets` returns with the same argument."""
    words, arguments = OPTIONS[option]
    result = CliRunner().invoke(main, ["sets", "--store", store_address, "--format", "json", *words])
    assert result.exit_code == 0, result.output
    printed = pl.DataFrame(json.loads(result.stdout), infer_schema_length=None)
    returned = pl.DataFrame(json.loads(sets(store_address, **arguments).write_json()), infer_schema_length=None)
    assert returned.to_dicts() == printed.to_dicts()


@pytest.mark.parametrize("field", ["model", "method", "level", "task", "prompt"])
def test_runs_are_selected_by_a_name_or_several(field: str, store_address: str) -> None:
    """A field of runs takes one name or a list of them, in the API as on the command line; a level in any of its forms."""
    value = {"model": "toy", "method": "wanda", "level": ".50", "task": "quiz", "prompt": "base"}[field]
    result = CliRunner().invoke(main, ["sets", "--store", store_address, "--format", "json", f"--{field}", value])
    names = [record["run"] for record in json.loads(result.stdout)]
    assert sets(store_address, **{field: value})["run"].to_list() == sets(store_address, **{field: [value]})["run"].to_list() == names


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"protocol": "ye2024", "split": "7"}, "fixes its split"),
        ({"protocol": "ye2024", "empty": "keep"}, "fixes its empty"),
        ({"protocol": "ye2024", "by": "none"}, "fixes its by"),
        ({"protocol": "ye2024", "scorers": ["raps"]}, "has no scorer 'raps'"),
        ({"protocol": "tong"}, "unknown protocol"),
        ({"mondrian": "subjects"}, "mondrian 'subjects' is not one"),
        ({"by": "nonsense"}, "by 'nonsense' is not one"),
        ({"empty": "drop"}, "empty 'drop' is not one"),
        ({"reliability": "platt"}, "reliability 'platt' is not one"),
        ({"calibration_fraction": "1.5"}, "outside (0, 1)"),
        ({"calibration_fraction": "half"}, "is not a number"),
        ({"alphas": 1.5}, "outside (0, 1)"),
        ({"alphas": "1e-99999999"}, "is not a number"),
        ({"scorers": "lacc"}, "unknown scorer"),
        ({"parameters": {"raps": {"nonsense": 1.0}}}, "no parameter 'nonsense'"),
        ({"parameters": ["raps.penalty=x"]}, "has no number"),
        ({"alpha": "0.1"}, "unknown argument 'alpha'"),
    ],
)
def test_what_cannot_be_meant_is_refused(arguments: dict[str, Any], said: str, store_address: str) -> None:
    """A value that is none of an option's, or that the protocol fixes, is a sentence, never another question."""
    with pytest.raises(UsageError, match=said.replace("(", r"\(").replace(")", r"\)")):
        sets(store_address, **arguments)


def test_compare_is_that_of_the_command(store_address: str) -> None:
    """`analyze compare` prints what `compare` returns."""
    result = CliRunner().invoke(main, ["compare", "--store", store_address, "--format", "json"])
    returned = json.loads(compare(store_address).write_json())
    assert returned == json.loads(result.stdout)


def test_every_command_has_a_function() -> None:
    """Each command of `analyze` that prints records has a function of its name in the API."""
    pages = {"report", "serve"}
    assert set(main.commands) - pages <= set(analyzer.api.__all__), Path(analyzer.api.__file__)
