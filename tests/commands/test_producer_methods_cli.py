"""What the command refuses before weights are loaded, by method, model and reason; and what compression puts into a run's key."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from click.testing import CliRunner
from first_line import after_first_line

from producer.cli.main import main
from producer.methods import METHODS
from producer.methods.shared.compression_data import draw_compression_data
from producer.models.find import find_model
from producer.models.load import load_tokenizer
from producer.prompts.templates import render_item
from producer.request.request import Request
from producer.run.plan import make_plan
from producer.tasks.urn import urn
from schemas.levels import parse_level
from schemas.run import RunKey

pytestmark = pytest.mark.producer
URN = ("--task", "urn", "--limit", "3")


def refused(tmp_path: Path, *arguments: str) -> str:
    """Return what the command says, having checked that it is one line, exit 2, and no store."""
    result = CliRunner().invoke(main, [*arguments, "--store", str(tmp_path / "store")])
    assert result.exit_code == 2, result.output
    assert len(after_first_line(result.stderr)) == 1, result.stderr
    assert not (tmp_path / "store").exists()
    return result.stderr


@pytest.mark.parametrize(
    ("method", "level", "message"),
    [
        ("wanda", "1.0", r"level '1\.0': a fraction removed must be in \[0, 1\)"),
        ("sparsegpt", "-0.1", r"level '-0\.1': a fraction removed must be in \[0, 1\)"),
        ("magnitude", "0:1:0.1", r"level '0:1:0\.1': a range start:stop:step"),
        ("wanda", "2:3", r"'wanda' at level '2:3' does not support model 'ref-s': 3 does not divide the 64 columns of self_attn\.q_proj"),
        ("rtn", "w4a16-g48", r"'rtn' at level 'w4a16-g48' does not support model 'ref-s': 48 does not divide the .* 2, 4, 8, 16, 32, 64"),
        ("rtn", "w0", r"level 'w0' is not valid; examples: w4a16-g128"),
        ("rtn", "w0a16", r"level 'w0a16': bits must be from 2"),
        ("gptq", "w4a4", r"'gptq' has no level 'w4a4': it quantizes weights only"),
        ("awq", "w4a4", r"'awq' has no level 'w4a4': it quantizes weights only"),
        ("slicegpt", "2:4", r"'slicegpt' has no level '2:4': it removes whole structures"),
    ],
)
def test_impossible_levels_are_one_sentence(tmp_path: Path, method: str, level: str, message: str) -> None:
    """The sentence quotes the level and names the method, the model as the user called it, and the reason."""
    assert re.search(message, refused(tmp_path, "--model", "ref-s", "--method", method, "--level", level, *URN))


@pytest.mark.parametrize("method", [name for name, method in METHODS.items() if parse_level(method.default_level).kind != "none"])
def test_an_unknown_model_type_is_one_sentence(tmp_path: Path, method: str) -> None:
    """A folder without weights is enough to be told that its type cannot be compressed, with the names of method and folder."""
    (tmp_path / "some-xlnet").mkdir()
    (tmp_path / "some-xlnet" / "config.json").write_text(json.dumps({"model_type": "xlnet"}))
    message = refused(tmp_path, "--model", str(tmp_path / "some-xlnet"), "--method", method, *URN)
    assert f"'{method}'" in message and "model 'some-xlnet'" in message
    assert "its model type is 'xlnet'" in message or "out of reach: rel_attn.q" in message


def test_empty_and_leaking_compression_data_are_refused(tmp_path: Path) -> None:
    """An empty file, and a text that holds an evaluation item, each get their sentence."""
    text = tmp_path / "text.txt"
    text.write_text("")
    arguments = ("--model", "ref-s", "--method", "wanda", "--compression-data")
    assert "is empty" in refused(tmp_path, *arguments, str(text), "--task", "urn")
    text.write_text("red blue green " * 100 + render_item(urn()[0]))
    assert "contains evaluation item '0'" in refused(tmp_path, *arguments, f"{text}:2x64", "--task", "urn")


def key(method: str, seed: int = 0, data: str = "embedded:2x64") -> RunKey:
    request = Request(models=("ref-s",), methods=(method,), tasks=("urn",), limit=3, seed=seed, compression_data=data)
    planned = make_plan(request)[0].runs[0].key
    assert planned is not None
    return planned


def test_the_key_holds_the_hash_of_the_compression_data() -> None:
    """Name, amount and seed of the data make another run; a method that sees no data has none."""
    drawn = draw_compression_data("embedded", load_tokenizer(find_model("ref-s")), sequences=2, length=64)
    assert key("wanda").compression_data_hash == drawn.digest
    assert len({key("wanda").digest, key("wanda", seed=1).digest, key("wanda", data="embedded:2x32").digest}) == 3
    assert key("magnitude").compression_data_hash == ""


def test_a_chosen_setting_is_part_of_the_key_and_of_no_other_method() -> None:
    """`--set smoothing=0.5` makes another smoothquant run, records the number, and leaves gptq's run as it was."""

    def runs(*chosen: str) -> dict[str, RunKey]:
        request = Request(models=("ref-s",), methods=("smoothquant", "gptq"), tasks=("urn",), limit=3, compression_data="embedded:2x64")
        return {run.key.method: run.key for group in make_plan(replace(request, chosen=chosen)) for run in group.runs if run.key}

    plain, chosen = runs(), runs("smoothing=0.5")
    assert plain["smoothquant"].method_settings["smoothing"] == 0.85
    assert chosen["smoothquant"].method_settings["smoothing"] == 0.5
    assert chosen["smoothquant"].name != plain["smoothquant"].name
    assert chosen["gptq"] == plain["gptq"]


@pytest.mark.parametrize(
    ("methods", "chosen", "message"),
    [
        (["gptq"], ["smoothing=0.5"], "--set smoothing=0.5 is no setting of gptq (gptq has none)"),
        (["awq", "rtn"], ["smoothing=0.5"], "--set smoothing=0.5 is no setting of awq or rtn (awq has clip; rtn has none)"),
        (["smoothquant"], ["smoothing"], "--set 'smoothing' is not NAME=VALUE"),
        (["smoothquant"], ["smoothing=0.5", "smoothing=0.6"], "--set gives 'smoothing' twice"),
        (["awq"], ["clip=0.5"], "--set clip=0.5: method 'awq' takes search or none"),
        (["llm-pruner"], ["blocks=1:9"], "blocks=1:9 ends behind its"),
    ],
)
def test_a_setting_that_cannot_be_meant_is_one_sentence(tmp_path: Path, methods: list[str], chosen: list[str], message: str) -> None:
    """An unknown setting, one without a value, one given twice and a value that is none are refused before anything is made."""
    words = [*(word for name in methods for word in ("--method", name)), *(word for text in chosen for word in ("--set", text))]
    assert message in refused(tmp_path, "--model", "ref-s", *words, *URN)


def test_the_settings_of_all_methods_are_listed() -> None:
    """`produce --list settings` names every option of every method with its values."""
    lines = CliRunner().invoke(main, ["--list", "settings"]).output.splitlines()
    listed = {tuple(line.split()[:2]) for line in lines[1:]}
    assert listed == {(name, option) for name, method in METHODS.items() for option in method.options}
