"""GGUF files: weights, rotary scaling and tokens as llama.cpp has them, or a refusal that names what is not honoured.

Every architecture read here was compared with llama.cpp's own server on random weights: log-probabilities of all tokens agree to 4e-6
(float32, key/value cache in float32, 40 tokens), and so do the tokens of its /tokenize.
"""

import json
import math
import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from click.testing import CliRunner
from first_line import after_first_line
from gguf_writer import LLAMA3_SPLIT, QWEN2_SPLIT, byte_level, tokenizer_keys, write_gguf
from producer_tiny import CONFIGS, MOE, SIZES, logits
from transformers import AutoModelForCausalLM, LlamaConfig, MixtralConfig, Olmo2Config, Qwen2MoeConfig, SmolLM3Config

from producer.cli.main import main
from producer.models.find import find_model
from producer.models.gguf_file import open_gguf
from producer.models.load import load_config, load_model, load_tokenizer
from producer.models.stored_as import stored_level
from producer.reference.tokenizer import build_tokenizer
from schemas.errors import HedgemarkError, UsageError
from store import open_reader

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.producer
TEXTS = ("On day 48213\nAnswer: A", "Hello  World's 12 §§ Übung\n\n x", "don't DON'T 3.14159 \t\n  end ", "日本語 and 🙂")
ROTARY = {"rope_theta": 10000.0}


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return byte_level()


def random_model(kind: str, tokenizer: Any, **changes: Any) -> Any:
    """Return an untrained model of a type with norms and biases that are uneven."""
    sizes = SIZES | {"vocab_size": len(tokenizer), "pad_token_id": None} | changes
    config = {
        "llama": lambda: LlamaConfig(**sizes),
        "qwen2": lambda: type(CONFIGS["qwen2"]())(**sizes),
        "qwen3": lambda: type(CONFIGS["qwen3"]())(**(sizes | {"head_dim": 32})),
        "qwen3_moe": lambda: type(CONFIGS["qwen3_moe"]())(**sizes, **MOE),
        "qwen2_moe": lambda: Qwen2MoeConfig(
            **sizes,
            moe_intermediate_size=32,
            shared_expert_intermediate_size=64,
            num_experts=4,
            num_experts_per_tok=2,
            norm_topk_prob=False,
        ),
        "mixtral": lambda: MixtralConfig(**sizes, num_local_experts=4, num_experts_per_tok=2, sliding_window=None),
        "olmo2": lambda: Olmo2Config(**sizes),
        "smollm3": lambda: SmolLM3Config(**(sizes | {"num_hidden_layers": 5})),
    }[kind]()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.data.mul_(torch.exp(0.3 * torch.randn_like(parameter))).add_(0.1 * torch.randn_like(parameter))
    return model


def ids_for(model: Any) -> Any:
    return torch.randint(2, model.config.vocab_size, (2, 40), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", ["llama", "qwen2", "qwen3", "qwen3_moe", "qwen2_moe", "mixtral", "olmo2", "smollm3"])
def test_a_lossless_file_gives_the_logits_of_the_original(kind: str, tokenizer: Any, tmp_path: Path) -> None:
    """Written in float32, every architecture comes back with the same logits, and is a dense model."""
    model = random_model(kind, tokenizer)
    write_gguf(tmp_path / "m.gguf", model, tokenizer)
    files = find_model(str(tmp_path / "m.gguf"))
    loaded = load_model(files, "float32", "cpu")
    assert torch.equal(logits(loaded, ids_for(model)), logits(model, ids_for(model)))
    assert stored_level(load_config(files)) == "-"


@pytest.mark.parametrize("kind", ["F16", "BF16", "Q8_0", "Q4_0", "Q5_1"])
def test_a_quantized_file_gives_the_logits_of_its_own_numbers(kind: str, tokenizer: Any, tmp_path: Path) -> None:
    """The logits are those of a plain model that holds the dequantized weights, and the level is the file's type."""
    model = random_model("llama", tokenizer)
    meant = write_gguf(tmp_path / "m.gguf", model, tokenizer, kind=kind)
    model.load_state_dict(meant)
    files = find_model(str(tmp_path / "m.gguf"))
    assert torch.equal(logits(load_model(files, "float32", "cpu"), ids_for(model)), logits(model, ids_for(model)))
    assert stored_level(load_config(files)) == ("-" if kind in ("F16", "BF16") else kind)
    assert str(load_config(files).dtype).removeprefix("torch.") == {"F16": "float16", "BF16": "bfloat16"}.get(kind, "float32")


@pytest.mark.parametrize(
    ("kind", "file_type", "level"),
    [("Q4_K", "MOSTLY_Q4_K_M", "Q4_K_M"), ("Q5_K", "MOSTLY_Q5_K_S", "Q5_K_S"), ("Q6_K", "ALL_F32", "Q6_K"), ("IQ4_XS", None, "IQ4_XS")],
)
def test_types_that_llama_cpp_writes_are_read(kind: str, file_type: str | None, level: str, tokenizer: Any, tmp_path: Path) -> None:
    """Super-blocks of 256 quantized by llama.cpp's own code; the level is the mixture's name only where the tensors agree with it."""
    pytest.importorskip("libgguf")  # in the extra test
    model = random_model("llama", tokenizer, hidden_size=256, intermediate_size=256, num_hidden_layers=1)
    number = None if file_type is None else int(getattr(gguf.LlamaFileType, file_type))
    meant = write_gguf(tmp_path / "m.gguf", model, tokenizer, kind=kind, keys={"general.file_type": number})
    assert any(not torch.equal(meant[name], weight) for name, weight in model.state_dict().items())
    model.load_state_dict(meant)
    files = find_model(str(tmp_path / "m.gguf"))
    assert torch.equal(logits(load_model(files, "float32", "cpu"), ids_for(model)), logits(model, ids_for(model)))
    assert stored_level(load_config(files)) == level


def llama3_factors(width: int, theta: float, context: int) -> list[float]:
    """Return what llama.cpp's converter divides each frequency by, for factors 8, 1 and 4 of Llama 3.1."""
    factors = []
    for i in range(0, width, 2):
        wave = 2 * math.pi * theta ** (i / width)
        smooth = (context / wave - 1) / (4 - 1)
        factors.append(1.0 if wave < context / 4 else 8.0 if wave > context else 1 / ((1 - smooth) / 8 + smooth))
    return factors


@pytest.mark.parametrize(
    ("kind", "rotary", "keys"),
    [
        ("llama", {"rope_type": "linear", "factor": 4.0}, {"llama.rope.scaling.type": "linear", "llama.rope.scaling.factor": 4.0}),
        ("llama", {"rope_type": "linear", "factor": 2.0}, {"llama.rope.scale_linear": 2.0}),
        (
            "qwen2",
            {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 64},
            {"qwen2.rope.scaling.type": "yarn", "qwen2.rope.scaling.factor": 4.0, "qwen2.rope.scaling.original_context_length": 64},
        ),
        ("llama", {"rope_type": "default"}, {"llama.rope.scaling.type": "none", "llama.rope.scaling.finetuned": False}),
    ],
)
def test_rotary_scaling_by_keys_is_honoured(kind: str, rotary: Any, keys: Any, tokenizer: Any, tmp_path: Path) -> None:
    """Linear and YaRN scaling give the logits of the original, and without it they would be others."""
    model = random_model(kind, tokenizer, rope_parameters=ROTARY | rotary)
    write_gguf(tmp_path / "m.gguf", model, tokenizer, keys=keys)
    found = logits(load_model(find_model(str(tmp_path / "m.gguf")), "float32", "cpu"), ids_for(model))
    assert torch.allclose(found, logits(model, ids_for(model)), atol=1e-5)
    plain = random_model(kind, tokenizer)
    assert rotary["rope_type"] == "default" or float((found - logits(plain, ids_for(plain))).abs().max()) > 0.01


def test_rotary_scaling_by_a_tensor_is_honoured(tokenizer: Any, tmp_path: Path) -> None:
    """Llama 3.1's scaling is stored as the tensor rope_freqs."""
    scaling = {
        "rope_type": "llama3",
        "factor": 8.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 64,
    }
    model = random_model("llama", tokenizer, rope_parameters=ROTARY | scaling)
    factors = llama3_factors(16, 10000.0, 64)
    write_gguf(tmp_path / "m.gguf", model, tokenizer, tensors={"rope_freqs.weight": factors})
    found = logits(load_model(find_model(str(tmp_path / "m.gguf")), "float32", "cpu"), ids_for(model))
    assert torch.allclose(found, logits(model, ids_for(model)), atol=1e-5)
    write_gguf(tmp_path / "n.gguf", model, tokenizer, tensors={"rope_freqs.weight": factors[:5]})
    with pytest.raises(HedgemarkError, match="has 5 factors for 8 rotary frequencies"):
        load_model(find_model(str(tmp_path / "n.gguf")), "float32", "cpu")


@pytest.mark.parametrize(
    ("keys", "tensors", "message"),
    [
        ({"general.architecture": "mamba"}, {}, "is of GGUF architecture 'mamba', which is not read; known: llama, qwen2"),
        ({"general.type": "adapter"}, {}, "is a GGUF file of type 'adapter', not a whole model"),
        ({"split.count": 3}, {}, "is one of 3 parts; join them with llama-gguf-split --merge"),
        (
            {"llama.attention.sliding_window": 64},
            {},
            "1 keys that are not read for architecture 'llama', attention.sliding_window among them",
        ),
        ({"llama.logit_scale": 0.5}, {}, "logit_scale among them"),
        ({"llama.embedding_scale": 12.0}, {}, "embedding_scale among them"),
        ({"llama.final_logit_softcapping": 30.0}, {}, "final_logit_softcapping among them"),
        ({"llama.rope.scaling.type": "longrope", "llama.rope.scaling.factor": 4.0}, {}, "rope.scaling.type among them"),
        (
            {"llama.rope.scaling.type": "yarn", "llama.rope.scaling.factor": 4.0, "llama.rope.scaling.attn_factor": 2.0},
            {},
            "attn_factor among",
        ),
        ({"llama.rope.scaling.type": "linear"}, {}, "scales rotary embeddings (linear) and states no factor"),
        ({"llama.rope.dimension_count": 8}, {}, "attention heads of different widths"),
        ({"llama.attention.head_count_kv": [2, 2, 1]}, {}, "does not state one number for attention.head_count_kv"),
        ({"llama.vocab_size": 12}, {}, "says 12 tokens, and its embedding has 600"),
        ({"llama.block_count": None}, {}, "does not state one number for block_count, as its architecture needs"),
        ({"llama.context_length": None}, {}, "does not state one number for context_length, as its architecture needs"),
        ({"llama.attention.layer_norm_rms_epsilon": None}, {}, "does not state one number for attention.layer_norm_rms_epsilon"),
        ({"llama.attention.causal": False}, {}, "attention.causal among them"),
        ({"llama.attention.clamp_kqv": 8.0}, {}, "attention.clamp_kqv among them"),
        ({"xyz.block_count": 3}, {}, "xyz.block_count among them"),
        ({}, {"blk.0.attn_q.scale": [1.0]}, "1 tensors that architecture 'llama' has no use for, blk.0.attn_q.scale among them"),
        ({}, {"blk.0.ffn_sub_norm.weight": [1.0]}, "blk.0.ffn_sub_norm.weight among them"),
        ({}, {"rope_factors_long.weight": [1.0]}, "rope_factors_long.weight among them"),
        ({"llama.rope.scaling.factor": 2.0}, {"rope_freqs.weight": [1.0] * 8}, "has both rope_freqs.weight and rope.scaling keys"),
    ],
)
def test_what_is_not_honoured_is_named(keys: Any, tensors: Any, message: str, tokenizer: Any, tmp_path: Path) -> None:
    """Keys and tensors that would change logits and are not read are refused, each by its name, before weights are loaded."""
    write_gguf(tmp_path / "m.gguf", random_model("llama", tokenizer), tokenizer, keys=keys, tensors=tensors)
    with pytest.raises(UsageError, match=re.escape(message)):
        load_config(find_model(str(tmp_path / "m.gguf")))


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (("expert_used_count", None), "does not state one number for expert_used_count"),
        (("expert_count", None), "does not state one number for expert_count"),
        (("expert_feed_forward_length", None), "does not state one number for expert_feed_forward_length"),
        (("expert_weights_scale", 2.5), "expert_weights_scale among them"),
        (("expert_weights_norm", True), "expert_weights_norm among them"),
        (("expert_gating_func", 2), "expert_gating_func among them"),
    ],
)
def test_how_experts_are_chosen_is_read_or_named(key: tuple[str, Any], message: str, tokenizer: Any, tmp_path: Path) -> None:
    """How many experts a token has is stated by the file, never a library's default; scales and gates that are not read are named."""
    name, value = key
    write_gguf(tmp_path / "m.gguf", random_model("qwen3_moe", tokenizer), tokenizer, keys={f"qwen3moe.{name}": value})
    with pytest.raises(UsageError, match=re.escape(message)):
        load_config(find_model(str(tmp_path / "m.gguf")))


@pytest.mark.parametrize("head", [False, True])
def test_a_tied_output_is_the_embedding_unless_the_file_has_one(head: bool, tokenizer: Any, tmp_path: Path) -> None:
    """Without the tensor output.weight logits come from the embedding; with it from that, whatever the model once was."""
    model = random_model("llama", tokenizer, tie_word_embeddings=True)
    other = torch.randn(len(tokenizer), 64, generator=torch.Generator().manual_seed(0))
    write_gguf(tmp_path / "m.gguf", model, tokenizer, tensors={"output.weight": other} if head else {})
    found = logits(load_model(find_model(str(tmp_path / "m.gguf")), "float32", "cpu"), ids_for(model))
    if head:
        model.lm_head.weight = torch.nn.Parameter(other)
    assert torch.equal(found, logits(model, ids_for(model)))


@pytest.mark.parametrize(
    ("kind", "names"),
    [("llama", ["rope.freq_base"]), ("qwen3", ["rope.freq_base"]), ("llama", ["attention.key_length", "attention.value_length"])],
)
def test_keys_that_older_files_lack_have_llama_cpps_defaults(kind: str, names: list[str], tokenizer: Any, tmp_path: Path) -> None:
    """A rotary base of 10,000, and heads that share the width of the model."""
    model = random_model(kind, tokenizer, rope_parameters=ROTARY)
    write_gguf(tmp_path / "m.gguf", model, tokenizer, keys={f"{kind}.{name}": None for name in names})
    found = load_model(find_model(str(tmp_path / "m.gguf")), "float32", "cpu")
    assert torch.equal(logits(found, ids_for(model)), logits(model, ids_for(model)))


def test_layers_and_biases_that_do_not_belong_are_refused(tokenizer: Any, tmp_path: Path) -> None:
    """A layer beyond the stated number and a bias that its model type has not are tensors that would be left out."""
    model = random_model("llama", tokenizer)
    write_gguf(tmp_path / "m.gguf", model, tokenizer, keys={"llama.block_count": 2})
    with pytest.raises(HedgemarkError, match=r"that a model of its config has no use for, model\.layers\.2\."):
        load_model(find_model(str(tmp_path / "m.gguf")), "float32", "cpu")
    write_gguf(tmp_path / "n.gguf", model, tokenizer, tensors={"blk.0.attn_output.bias": np.zeros(64)})
    with pytest.raises(HedgemarkError, match=r"self_attn\.o_proj\.bias"):
        load_model(find_model(str(tmp_path / "n.gguf")), "float32", "cpu")


@pytest.mark.parametrize(("pre", "split"), [("llama-bpe", LLAMA3_SPLIT), ("qwen2", QWEN2_SPLIT)])
@pytest.mark.parametrize("begins", [True, False])
def test_the_tokens_are_those_of_the_original(pre: str, split: str, begins: bool, tmp_path: Path) -> None:
    """Text is split as the pre-tokenizer says, and begins with the begin-of-text token where the file says so."""
    original = byte_level(split, begins=begins)
    write_gguf(tmp_path / "m.gguf", random_model("llama", original), original, pre=pre)
    found = load_tokenizer(find_model(str(tmp_path / "m.gguf")))
    for text in TEXTS:
        assert found(text)["input_ids"] == original(text)["input_ids"]
    assert (found.bos_token, found.eos_token) == ("<|begin|>", "<|end|>")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"tokenizer.ggml.pre": "falcon-9"}, "splits text by the pre-tokenizer 'falcon-9', which is not known here"),
        ({"tokenizer.ggml.pre": None}, "splits text by the pre-tokenizer None"),
        ({"tokenizer.ggml.model": "t5"}, "has a tokenizer of model 't5'; known: gpt2, llama"),
        ({"tokenizer.ggml.remove_extra_whitespaces": True}, "tokenizer.ggml.remove_extra_whitespaces, which is not read"),
        ({"tokenizer.ggml.normalizer.lowercase": True}, "tokenizer.ggml.normalizer.lowercase, which is not read"),
        ({"tokenizer.ggml.merges": None}, "a byte-level tokenizer without merges"),
        ({"tokenizer.ggml.tokens": None}, "holds no tokenizer"),
    ],
)
def test_a_tokenizer_that_is_not_honoured_is_named(changed: Any, message: str, tokenizer: Any, tmp_path: Path) -> None:
    """An unknown pre-tokenizer or key is refused by name; the original tokenizer beside the file is the cure."""
    write_gguf(tmp_path / "m.gguf", random_model("llama", tokenizer), tokenizer, keys=changed)
    with pytest.raises(UsageError, match=re.escape(message)):
        load_tokenizer(find_model(str(tmp_path / "m.gguf")))


def test_the_original_tokenizer_beside_the_file_is_used_where_it_is_the_same(
    tokenizer: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """It may split in a way that is unknown here; another model's tokenizer in the same folder is left alone with a warning."""
    model = random_model("llama", tokenizer)
    write_gguf(tmp_path / "m.gguf", model, tokenizer, pre="unheard-of")
    tokenizer.save_pretrained(tmp_path)
    assert load_tokenizer(find_model(str(tmp_path / "m.gguf")))(TEXTS[0])["input_ids"] == tokenizer(TEXTS[0])["input_ids"]
    write_gguf(tmp_path / "m.gguf", model, tokenizer)
    build_tokenizer(tmp_path)
    assert load_tokenizer(find_model(str(tmp_path / "m.gguf")))(TEXTS[0])["input_ids"] == tokenizer(TEXTS[0])["input_ids"]
    assert "is not the GGUF file's" in caplog.text


def sentence_pieces(tmp_path: Path) -> tuple[Any, dict[str, Any]]:
    """Train a SentencePiece tokenizer, and return it with the keys that llama.cpp's converter writes for it."""
    spm = pytest.importorskip("sentencepiece")
    from producer.methods.shared.compression_data import PACKAGED

    spm.SentencePieceTrainer.train(
        input=str(PACKAGED), model_prefix=str(tmp_path / "p"), vocab_size=800, model_type="bpe", byte_fallback=True, minloglevel=2,
        normalization_rule_name="identity", remove_extra_whitespaces=False, split_digits=True, user_defined_symbols=["<extra>"],
    )  # fmt: skip
    pieces = spm.SentencePieceProcessor(model_file=str(tmp_path / "p.model"))
    size = pieces.vocab_size()
    kinds = [
        2
        if pieces.is_unknown(i)
        else 3
        if pieces.is_control(i)
        else 6
        if pieces.is_byte(i)
        else 4
        if pieces.id_to_piece(i) == "<extra>"
        else 1
        for i in range(size)
    ]
    return pieces, {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": [pieces.id_to_piece(i) for i in range(size)],
        "tokenizer.ggml.scores": [float(pieces.get_score(i)) for i in range(size)],
        "tokenizer.ggml.token_type": kinds,
        "tokenizer.ggml.bos_token_id": pieces.bos_id(),
        "tokenizer.ggml.eos_token_id": pieces.eos_id(),
        "tokenizer.ggml.unknown_token_id": pieces.unk_id(),
    }


@pytest.mark.parametrize("begins", [None, True, False])
def test_sentence_pieces_are_those_of_sentencepiece(begins: bool | None, tmp_path: Path) -> None:
    """Pieces, byte fallback and leading space are those of the library; a text begins with <s> unless the file says otherwise."""
    pieces, keys = sentence_pieces(tmp_path)
    keys |= {} if begins is None else {"tokenizer.ggml.add_bos_token": begins}
    sizes = [None] * pieces.vocab_size()
    write_gguf(tmp_path / "m.gguf", random_model("llama", sizes), keys=keys)
    found = load_tokenizer(find_model(str(tmp_path / "m.gguf")))
    for text in (*TEXTS, "Which urn? Answer: B<extra>", " leading space"):
        expected = pieces.encode(text)
        assert found(text)["input_ids"] == ([pieces.bos_id()] if begins is not False else []) + expected, text


@pytest.mark.parametrize("damage", [lambda data: data[:-64], lambda data: data[:100], lambda data: b"GGUX" + data[4:], lambda data: b""])
def test_a_damaged_file_is_one_sentence(damage: Any, tokenizer: Any, tmp_path: Path) -> None:
    """A file cut off or of another kind is refused by name, without a traceback."""
    path = tmp_path / "m.gguf"
    write_gguf(path, random_model("llama", tokenizer), tokenizer)
    path.write_bytes(damage(path.read_bytes()))
    asked = ["--model", str(path), "--task", "urn", "--limit", "2", "--store", str(tmp_path / "store")]
    result = CliRunner().invoke(main, asked)
    assert result.exit_code in (2, 5)
    assert len(after_first_line(result.stderr)) == 1 and "of 'm' in" in result.stderr


def test_a_quantized_file_is_a_checkpoint_and_never_dense(tokenizer: Any, tmp_path: Path) -> None:
    """Without a method it is refused, as a model to compress it is refused, and as a checkpoint it has its type as level."""
    write_gguf(tmp_path / "m.gguf", random_model("llama", tokenizer), tokenizer, kind="Q8_0")
    asked = ["--model", str(tmp_path / "m.gguf"), "--task", str(items(tmp_path)), "--store", str(tmp_path / "store")]
    for more in ([], ["--method", "rtn", "--level", "w4a16-g32"]):
        result = CliRunner().invoke(main, [*asked, *more])
        assert (result.exit_code, "already quantized (gguf); run it unchanged with --method checkpoint" in result.stderr) == (2, True)
    assert CliRunner().invoke(main, [*asked, "--method", "checkpoint"]).exit_code == 0
    assert open_reader(str(tmp_path / "store")).catalog["level"].to_list() == ["Q8_0"]


def test_a_lossless_file_is_asked_the_same_tokens(tokenizer: Any, tmp_path: Path) -> None:
    """A folder and a float32 GGUF of one model store the same logits and the same digest of tokens."""
    model = random_model("llama", tokenizer)
    model.save_pretrained(tmp_path / "folder")
    tokenizer.save_pretrained(tmp_path / "folder")
    write_gguf(tmp_path / "m.gguf", model, tokenizer)
    for name in ("folder", "m.gguf"):
        asked = ["--model", str(tmp_path / name), "--task", str(items(tmp_path)), "--store", str(tmp_path / "store")]
        assert CliRunner().invoke(main, asked).exit_code == 0
    reader = open_reader(str(tmp_path / "store"))
    first, second = (reader.run(name) for name in reader.catalog["name"])
    assert first.key.tokens_hash == second.key.tokens_hash
    np.testing.assert_allclose(first.logits, second.logits, atol=1e-5)


def items(folder: Path) -> Path:
    """Write a few items with numbers, on which a wrong pre-tokenizer shows."""
    choices = {"A": "one", "B": "two", "C": "three", "D": "four"}
    rows = [{"id": str(i), "question": f"On day {48213 + 7 * i} what was lot {i}?", "choices": choices, "answer": "B"} for i in range(6)]
    (folder / "items.json").write_text(json.dumps(rows))
    return folder / "items.json"


def test_keys_of_the_tokenizer_are_written_as_converters_do(tokenizer: Any, tmp_path: Path) -> None:
    """The writer of these tests is no empty check: its file holds the keys that it says."""
    write_gguf(tmp_path / "m.gguf", random_model("llama", tokenizer), tokenizer)
    keys = open_gguf(tmp_path / "m.gguf").keys
    assert keys["tokenizer.ggml.merges"] == tokenizer_keys(tokenizer, "llama-bpe")["tokenizer.ggml.merges"]
    assert keys["tokenizer.ggml.add_bos_token"] is True
