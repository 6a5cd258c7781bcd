"""Models of images and text, asked with text alone: the logits are those of their language model, from a folder into the store."""

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from model_zoo import SIZES, VOCABULARY
from producer_prefill import plain
from producer_standin import save_standin, urn_rows, write_items
from transformers import AutoConfig, AutoModelForImageTextToText, AutoTokenizer

from producer.cli.main import main
from producer.methods import METHODS
from producer.methods.shared.linear_layers import target_layers
from producer.models.model_class import IMAGES_AND_TEXT
from producer.request.request import Request
from producer.run.plan import make_plan
from producer.saved.folder import unsavable
from schemas.levels import parse_level
from store import open_reader

pytestmark = pytest.mark.producer
AS_LANGUAGE_MODELS = ("gemma3", "qwen3_5")  # whose config transformers takes for a causal language model's
FEW = ("llama4", "mistral3", "qwen2_5_vl", "qwen3_5")  # asked on every run of the tests
CASES = [pytest.param(name, marks=[] if name in FEW else pytest.mark.slow) for name in (*IMAGES_AND_TEXT, *AS_LANGUAGE_MODELS)]
SMALL: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "depth": 1, "num_heads": 2,
    "embed_dim": 32, "image_size": 28, "patch_size": 14, "out_hidden_size": 64, "num_position_embeddings": 16, "fullatt_block_indexes": [0],
    "deepstack_visual_indexes": [0],
}  # fmt: skip


def sizes_for(config: Any, sizes: dict[str, Any]) -> dict[str, Any]:
    known = config.to_dict()
    return {name: size for name, size in sizes.items() if name in known}


def small_model(family: str, vocabulary: int) -> Any:
    """Return a random model of images and text whose both halves are small."""
    auto: Any = AutoModelForImageTextToText
    default: Any = AutoConfig.for_model(family)
    text, vision = default.get_text_config(), default.vision_config
    own: dict[str, Any] = {"layer_types": None} if getattr(text, "layer_types", None) else {}
    if family in ("glm4v", "qwen2_vl", "qwen2_5_vl"):  # positions of three kinds share the eight frequencies of a head of 16
        own["rope_parameters"] = {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}
    layers = {"num_hidden_layers": 4, "vocab_size": vocabulary, "max_position_embeddings": 512}
    small = type(text)(**sizes_for(text, SIZES | layers), **own)
    half = type(vision)(**sizes_for(vision, SMALL))
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        config = type(default)(text_config=small, vision_config=half)
        return auto.from_config(config, dtype=torch.float32).eval()


@pytest.mark.parametrize("family", CASES)
def test_text_is_answered_by_the_language_model(family: str, tmp_path: Path) -> None:
    """Stored logits equal those of the embedded language model and the head, prompt by prompt, without the half that sees images."""
    folder = save_standin(tmp_path / "model")
    (folder / "model.safetensors").unlink()
    model = small_model(family, len(AutoTokenizer.from_pretrained(folder)))
    model.save_pretrained(folder)
    items, store = write_items(tmp_path / "items.json", urn_rows(8)), str(tmp_path / "store")
    where = ["--store", store, "--device", "cpu", "--dtype", "float32"]
    done = CliRunner().invoke(main, ["--model", str(folder), "--task", str(items), *where])
    assert done.exit_code == 0, done.output
    run = open_reader(store).run(done.stdout.strip())
    request = Request(models=(str(folder),), methods=("dense",), tasks=(str(items),), dtype="float32", device="cpu")
    prompted = make_plan(request)[0].runs[0].prompted
    alone = LanguageModel(model)
    np.testing.assert_allclose(run.logits, plain(alone, prompted.prompts)[:, list(prompted.options.ids)], atol=2e-5)


@pytest.mark.parametrize("family", ["llava", "qwen2_5_vl"])
def test_only_the_half_that_answers_text_is_compressed(family: str) -> None:
    """Every matrix of the language model's layers is rounded, nothing that sees images is, and it is not saved as a checkpoint."""
    before, level = small_model(family, VOCABULARY), parse_level("w4a16-g8")
    METHODS["rtn"].check_config(before.config, level, "m")
    made = METHODS["rtn"].apply(small_model(family, VOCABULARY), level, None, 0)
    weights = dict(before.named_parameters())
    changed = {name for name, weight in made.model.named_parameters() if not torch.equal(weight, weights[name])}
    layers = {f"{name}.weight" for name in target_layers(before)}
    assert changed == layers and len(layers) == 4 * 7 and all("language_model" in name for name in layers)
    assert made.conditions["share_of_matrices"] == 1.0
    assert "no checkpoint is written of a half" in unsavable(METHODS["rtn"], before.config, [level])


class LanguageModel(torch.nn.Module):
    """The language half of a model, called as one of its own."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.whole = model
        self.inner = next(part for name, part in model.named_modules() if name.endswith(("language_model", "text_model")))

    def forward(self, input_ids: Any) -> Any:
        output = self.inner(input_ids=input_ids)
        logits = output.logits if hasattr(output, "logits") else self.whole.get_output_embeddings()(output.last_hidden_state)
        return type("Output", (), {"logits": logits})
