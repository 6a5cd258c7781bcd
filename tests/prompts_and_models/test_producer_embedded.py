"""What the files of the embedded models state is what transformers reads from them, so a dry run needs neither it nor torch."""

import json
import subprocess
import sys
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import pytest

from producer.methods import METHODS
from producer.methods.shared.architectures import linear_shapes, unknown_architecture
from producer.models.embedded import EmbeddedConfig, EmbeddedTokenizer, is_embedded
from producer.models.find import REFERENCE, find_model
from producer.models.load import load_config, load_tokenizer
from producer.models.unread_settings import unread_settings
from producer.models.weights_hash import weight_bytes_as
from producer.prompts.chat import has_template
from producer.prompts.encode import encode, option_tokens, prompt_hash
from producer.prompts.templates import PROMPTS, instruction_for
from producer.prompts.token_quirks import describe_token_quirks
from producer.request.request import Request
from producer.run.plan import make_plan
from producer.tasks.source import load_task
from schemas.levels import parse_level

pytestmark = pytest.mark.producer
ODD_TEXTS = ("", " ", "x<s>", "a<unk>b <pad>", "Übung 日本語 🙂", "Question:\n\nAnswer: A", "Answer: F\r\n\t", "  two  blanks ", "A" * 999)
LEVELS = (
    "-", "w4a16", "w4a16-g32", "w4a16-g128", "w8a8", "w4a4", "w4a4-g48", "MXFP4", "NVFP4", "0.3", "0.5", "2:4", "nf4", "w8a8+kv-fp8",
    "w4a16-g32+kv-nvfp4",
)  # fmt: skip


def of(method: str, config: Any, level: str) -> tuple[Any, ...]:
    """All that a plan asks a method about a model."""
    known = METHODS[method]
    parsed = parse_level(level)
    if known.refusal(parsed):
        return ()
    stated = known.level_for(config, parsed)
    misfit = known.misfit(config, stated)
    return known.default_for(config), stated, misfit, "" if misfit else known.settings(stated, config)


@pytest.mark.parametrize("name", REFERENCE)
def test_a_config_states_what_transformers_reads(name: str) -> None:
    """Every setting has the same value; so have the number of parameters, the layers, and what methods make of them at every level."""
    files = find_model(name)
    stated, whole = EmbeddedConfig(files), load_config(files)
    assert is_embedded(files)
    settings = {setting: value for setting, value in whole.to_dict().items() if not setting.startswith("_")}
    assert {setting: getattr(stated, setting) for setting in settings} == settings
    assert getattr(whole, "quantization_config", None) is None and getattr(whole, "kv_lora_rank", None) is None
    assert weight_bytes_as(files, stated, "float32") == weight_bytes_as(files, whole, "float32")
    assert list(linear_shapes(stated).items()) == list(linear_shapes(whole).items())
    assert unknown_architecture(stated) == unknown_architecture(whole) == ""
    assert unread_settings(stated) == unread_settings(whole) == []
    assert [of(method, stated, level) for method, level in product(METHODS, LEVELS)] == [
        of(method, whole, level) for method, level in product(METHODS, LEVELS)
    ]


def test_all_have_one_tokenizer() -> None:
    """The files of the tokenizer are the same for all models, so that comparing the tokens of one compares them all."""
    folders = [find_model(name).folder for name in REFERENCE]
    assert len({(folder / "tokenizer.json").read_bytes() + (folder / "tokenizer_config.json").read_bytes() for folder in folders}) == 1


@pytest.mark.parametrize("task", ["urn", "facts"])
def test_a_tokenizer_gives_the_tokens_of_transformers(task: str) -> None:
    """The ids are the same for items in every prompt, and so is what is derived from them."""
    stated, whole = EmbeddedTokenizer(find_model("ref-s")), load_tokenizer(find_model("ref-s"))
    loaded = load_task(task, "", ())
    loaded = replace(loaded, items=loaded.items[:400])
    for prompt in PROMPTS:
        instruction = instruction_for(task, prompt, "")
        prompts = encode(stated, instruction, loaded.demonstrations, loaded.items, 512)
        assert prompts == encode(whole, instruction, loaded.demonstrations, loaded.items, 512)
        assert option_tokens(stated, 6) == option_tokens(whole, 6)
        assert prompt_hash(stated, instruction, loaded.demonstrations) == prompt_hash(whole, instruction, loaded.demonstrations)
        assert [*describe_token_quirks(stated, loaded.items, prompts)] == [*describe_token_quirks(whole, loaded.items, prompts)]


def test_odd_texts_have_the_tokens_of_transformers() -> None:
    """So have texts that no task has, with special tokens and without, cut and whole; and tokens have the same names."""
    stated, whole = EmbeddedTokenizer(find_model("ref-s")), load_tokenizer(find_model("ref-s"))
    for options in ({}, {"add_special_tokens": False}, {"truncation": True, "max_length": 5}):
        assert stated(ODD_TEXTS, **options)["input_ids"] == whole(list(ODD_TEXTS), **options)["input_ids"]
        assert [stated(text, **options)["input_ids"] for text in ODD_TEXTS] == [whole(text, **options)["input_ids"] for text in ODD_TEXTS]
    ids = list(range(len(whole)))
    assert stated.convert_ids_to_tokens(ids) == whole.convert_ids_to_tokens(ids)
    assert stated.convert_ids_to_tokens(3) == whole.convert_ids_to_tokens(3)
    for attribute in ("bos_token_id", "eos_token_id", "unk_token_id", "model_max_length", "pad_token_id"):
        assert getattr(stated, attribute) == getattr(whole, attribute), attribute
    assert sorted(stated.all_special_tokens) == sorted(whole.all_special_tokens)
    assert has_template(stated) == has_template(whole) is False


def test_a_plan_that_is_only_described_has_the_same_keys() -> None:
    """The runs that a dry run describes are those that are made: same keys, tokens and notes, with compression data and without."""
    asked = {"tasks": ("urn", "facts"), "prompts": ("base", "task"), "limit": 9}
    request = Request(models=("ref-s", "ref-moe"), methods=("dense", "rtn", "gptq"), **asked)

    def plan(*, download: bool) -> list[tuple[Any, ...]]:
        runs = [(run, group.model.weight_bytes) for group in make_plan(request, download=download) for run in group.runs]
        return [(run.key, run.prompted.prompts.digest, run.prompted.notes, n_bytes) for run, n_bytes in runs]

    assert plan(download=False) == plan(download=True) and len(plan(download=False)) == 2 * 3 * 2 * 2


@pytest.mark.parametrize(
    ("arguments", "code", "expected"),
    [
        (["--model", "ref-s", "--model", "ref-moe", "--method", "dense", "--method", "gptq", "--limit", "9", "--dry-run"], 0, "8 to run"),
        (["--model", "ref-s", "--kv", "fp8", "--task", "urn", "--limit", "9", "--dry-run"], 0, "1 to run"),
        (["--model", "no/such/folder"], 2, "unknown model"),
        (["--model", "ref-s", "--task", "no-such-file.jsonl"], 2, "no-such-file.jsonl"),
        (["--model", "ref-s", "--method", "rtn", "--level", "0.5"], 2, "has no level '0.5'"),
        (["--model", "ref-s", "--no-such-option"], 2, "No such option"),
        (["--help"], 0, "--dry-run"),
        (["--list", "methods"], 0, "sparsegpt"),
    ],
)
def test_what_runs_nothing_loads_no_torch(tmp_path: Path, arguments: list[str], code: int, expected: str) -> None:
    """A dry run of embedded models, a refusal and the help need neither torch nor transformers, which take ten times as long to import.

    A refusal does not wait for what opens a store either.
    """
    heavy = {"torch", "transformers", *({"zarr", "icechunk", "polars"} if code else ())}
    report = f"json.dump(sorted({heavy} & set(sys.modules)), open('loaded.json', 'w'))"
    script = f"import atexit, json, sys; from producer.cli.main import main; atexit.register(lambda: {report}); main()"
    command = [sys.executable, "-c", script, "--store", str(tmp_path / "store"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == code and expected in done.stdout + done.stderr
    assert json.loads((tmp_path / "loaded.json").read_text()) == []
