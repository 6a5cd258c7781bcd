"""The Python API answers as the commands do, option by option: one `ask` serves both."""

import inspect
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from analyzer_data import make_run, skilled_logits
from click.testing import CliRunner
from shipping import data_set
from store_tiny import write_runs

import analyzer.api
from analyzer.api import ask, calibrate, sets
from analyzer.cli.main import main
from schemas.errors import UsageError
from schemas.fields import FIELDS
from schemas.items import Item
from schemas.itemset import build_item_set
from schemas.run import Environment
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
    "cluster": (["--cluster", "subject"], {"cluster": "subject"}),
}


@pytest.fixture(scope="module")
def store_address(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dense run, a noisier compressed one and another dense model, of 90 items in three subjects."""
    address = str(tmp_path_factory.mktemp("api") / "store")
    init_store(address)
    rng = np.random.default_rng(0)
    answers = rng.integers(0, 4, 90)
    texts = [Item(id=str(i), question=f"{i}?", choices=dict(zip("ABCD", "wxyz", strict=True)), answer="ABCD"[a], subject=f"s{i % 3}")
             for i, a in enumerate(answers)]  # fmt: skip
    items, logits = build_item_set("quiz", texts), skilled_logits(rng, answers, 4)
    noisy = logits + rng.normal(size=logits.shape).astype(np.float32)
    dense = replace(make_run(items, logits), env=Environment(parameters=1000))
    runs = [dense, make_run(items, noisy, method="wanda", level="0.5"), make_run(items, noisy / 2, model="other")]
    write_runs(address, items, [*runs, make_run(items, noisy * 2, prompt="base@1")])
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
        ({"mondrian": "subjects"}, "mondrian 'subjects' is not known"),
        ({"by": "nonsense"}, "by 'nonsense' is not known"),
        ({"empty": "drop"}, "empty 'drop' is not known"),
        ({"reliability": "platt"}, "reliability 'platt' is not known"),
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


# Command and option -> (its words, the function that answers, the same as arguments). "" is the command without options of its own. A test
# below asks for one of every option of every command; TOML and CSV are the files that `files` writes.
OWN_OPTIONS: dict[tuple[str, str], tuple[list[str], str, dict[str, Any]]] = {
    ("sets", "average"): (["--average"], "sets", {"average": True}),
    ("sets", "reference"): (["--reference", "stated.csv"], "sets", {"reference": "stated.csv"}),
    ("compare", "against"): (["--against", "other"], "compare", {"against": "other"}),
    ("sensitivity", "against"): (["--against", "other"], "sensitivity", {"against": "other"}),
    ("transfer", "against"): (["--against", "other"], "transfer", {"against": "other"}),
    ("cliffs", "against"): (["--against", "other"], "cliffs", {"against": "other"}),
    ("cost", "against"): (["--against", "other", "--prices", "prices.toml"], "cost", {"against": "other", "prices": "prices.toml"}),
    ("gate", "against"): (["--against", "other", "--limit", "kl=2"], "gate", {"against": "other", "limits": {"kl": 2.0}}),
    ("compare", "common_items"): (["--common-items"], "compare", {"common_items": True}),
    ("compare", "average"): (["--average"], "compare", {"average": True}),
    ("compare", "accuracy_tolerance"): (["--accuracy-tolerance", "0.5"], "compare", {"accuracy_tolerance": 0.5}),
    ("compare", "set_size_tolerance"): (["--set-size-tolerance", "3"], "compare", {"set_size_tolerance": 3.0}),
    ("compare", "decoupling"): (["--decoupling"], "decoupling", {}),
    ("compare", "reference"): (["--reference", "figures.csv"], "beside_published", {"figures": "figures.csv"}),
    ("sensitivity", ""): ([], "sensitivity", {}),
    ("transfer", "source"): (["--from", "subject"], "transfer", {"kept_from": "subject"}),
    ("transfer", "subject_mix"): (["--subject-mix", "mix.toml"], "weighted", {"subject_mix": {"s0": 0.8, "s1": 0.2}}),
    ("transfer", "coverage_tolerance"): (["--coverage-tolerance", "0.5"], "transfer", {"coverage_tolerance": 0.5}),
    ("guarantee", "delta"): (["--delta", "0.2"], "guarantee", {"delta": 0.2}),
    ("guarantee", "n_next"): (["--next", "30"], "guarantee", {"n_next": 30}),
    ("guarantee", "risk"): (["--risk", "0.4"], "guarantee", {"risk": 0.4}),
    ("position", ""): (["--prompt", "base"], "position", {"prompt": "base"}),
    ("sets", ""): (["--prompt", "base@mean2"], "sets", {"prompt": "base@mean2"}),
    ("frontier", "against"): (["--against", "toy"], "frontier", {"against": "toy"}),
    ("scale", ""): ([], "scale", {}),
    ("cliffs", "accuracy_tolerance"): (["--accuracy-tolerance", "0.5"], "cliffs", {"accuracy_tolerance": 0.5}),
    ("cliffs", "set_size_tolerance"): (["--set-size-tolerance", "3"], "cliffs", {"set_size_tolerance": 3.0}),
    ("cost", "path"): (["--prices", "prices.toml"], "cost", {"prices": "prices.toml"}),
    ("gate", "policy"): (["--policy", "policy.toml"], "gate", {"policy": "policy.toml"}),
    ("gate", "predictor"): (["--predictor", "p.json"], "gate", {"predictor": "p.json"}),
    ("gate", "limits"): (["--limit", "kl=2", "--limit", "flips=0.5"], "gate", {"limits": {"kl": 2.0, "flips": 0.5}}),
}
FILES = {
    "p.json": json.dumps(calibrate(data_set(task="quiz")).document.value),
    "stated.csv": "model,task,prompt,alpha,set_size\ntoy,quiz,base,0.1,2.0\ntoy,quiz,task,0.1,2.0\n",
    "figures.csv": "model,method,level,task,metric,value\ntoy,wanda,0.5,quiz,set_size,2.0\n",
    "mix.toml": "[subjects]\ns0 = 0.8\ns1 = 0.2\n",
    "prices.toml": "[prices]\nreview = 2.0\n",
    "policy.toml": "[limits]\naccuracy_loss = 0.1\n[task.quiz]\nkl = 1.0\n",
}
REPORTS = {"junit", "markdown", "eval_results", "data_sets", "track"}
PRINTING = {"store_url", "at", "color", "form", "executor", *REPORTS}  # where from, how printed, where computed
IN_MEMORY = {("sets", "p_values")}  # `p_values` takes one data set and returns an array; its own tests compare the two
PAGES = {"report", "serve", "study"}
TEXTS = {"text"}  # about other runs than all other commands: tests/studies/test_analyzer_text.py compares it with its function
SHIPPING = {"calibrate", "monitor", "predict"}  # files in and out: tests/shipping compares them with their functions


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files that options name, in the working folder."""
    for name, text in FILES.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)


def test_every_option_of_every_command_is_compared() -> None:
    """No option that a command has for itself is left out of the comparison below, and no command."""
    common = {*FIELDS, *inspect.signature(ask).parameters, *PRINTING}
    apart = PAGES | SHIPPING | TEXTS
    own = {(name, option.name) for name, command in main.commands.items() if name not in apart for option in command.params}
    compared = {key for key in OWN_OPTIONS if key[1]} | IN_MEMORY
    assert {key for key in own if key[1] not in common} == compared
    assert {name for name, _ in OWN_OPTIONS} == set(main.commands) - apart


@pytest.mark.usefixtures("files")
@pytest.mark.parametrize(("command", "option"), OWN_OPTIONS)
def test_a_function_returns_what_its_command_prints(command: str, option: str, store_address: str) -> None:
    """Every option that one command has for itself means the same as an argument of the function."""
    words, function, arguments = OWN_OPTIONS[command, option]
    result = CliRunner().invoke(main, [command, "--store", store_address, "--format", "json", "--scorer", "lac", *words])
    assert result.stdout, result.output
    returned = getattr(analyzer.api, function)(store_address, scorers="lac", **arguments)
    assert json.loads(returned.write_json()) == pl.DataFrame(json.loads(result.stdout), infer_schema_length=None).to_dicts()
