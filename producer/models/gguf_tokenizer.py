"""Read the tokenizer of a GGUF file so that it gives the same tokens as llama.cpp, or raise an error.

In: the keys of a file.  Out: a fast tokenizer of transformers. The effect of a wrong one looks like damage by compression (a KL divergence
of 0.2 was seen). What matters is the pre-tokenizer (`tokenizer.ggml.pre`), which says how text is split before tokens are merged, and
whether a begin-of-text token comes first. If the original tokenizer is in the same folder and has the same tokens, it is used unchanged.
Rules for pre-tokenizers and defaults of missing keys: llama.cpp, src/llama-vocab.cpp.
"""

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from producer.models.gguf_file import GgufFile
from producer.models.tokenizer_folder import read_tokenizer
from schemas.errors import UsageError

log = logging.getLogger(__name__)

PREFIX = "tokenizer.ggml."
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
_CONTRACTIONS = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_REST = r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_LLAMA3 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}{{1,3}}|{_REST}"
_QWEN2 = rf"{_CONTRACTIONS}|[^\r\n\p{{L}}\p{{N}}]?\p{{L}}+|\p{{N}}|{_REST}"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_TEKKEN = (
    rf"[^\r\n\p{{L}}\p{{N}}]?{_UPPER}*{_LOWER}+|[^\r\n\p{{L}}\p{{N}}]?{_UPPER}+{_LOWER}*|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SPLITS = {  # name of the pre-tokenizer -> patterns, applied one after the other
    **dict.fromkeys(("llama-bpe", "llama3", "llama-v3", "dbrx", "smaug-bpe", "glm4", "chatglm-bpe", "falcon3"), (_LLAMA3,)),
    **dict.fromkeys(("qwen2", "deepseek-r1-qwen", "stablelm2", "megrez", "hunyuan"), (_QWEN2,)),
    **dict.fromkeys(("gpt-2", "phi-2", "mpt", "olmo", "exaone4"), (_GPT2,)),
    **dict.fromkeys(("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b"), (r"\p{N}", _GPT2)),
    "tekken": (_TEKKEN,),
}
# With these pre-tokenizers a piece of text that is itself a token is not merged from smaller ones, and texts start with the begin-of-text
# token by default.
WHOLE_WORDS = (
    "llama-bpe",
    "llama3",
    "llama-v3",
    "falcon3",
    "tekken",
)
KNOWN = (
    "model", "pre", "tokens", "scores", "token_type", "merges", "bos_token_id", "eos_token_id", "unknown_token_id", "padding_token_id",
    "add_bos_token", "add_eos_token", "add_space_prefix",
    # Tokens that end an answer, fill gaps in code or separate sentences do not change how a prompt is tokenized.
    "eot_token_id", "eom_token_id", "eog_token_ids", "separator_token_id", "seperator_token_id", "cls_token_id", "mask_token_id",
    "prefix_token_id", "suffix_token_id", "middle_token_id", "fim_pre_token_id", "fim_suf_token_id", "fim_mid_token_id",
    "fim_pad_token_id", "fim_rep_token_id", "fim_sep_token_id", "token_type_count", "suppress_tokens",
)  # fmt: skip
NEUTRAL = (
    "remove_extra_whitespaces",
    "add_sep_token",
    "precompiled_charsmap",
)  # not supported, so accepted only if they are false or empty


def gguf_tokenizer(file: GgufFile) -> Any:
    """Return the tokenizer of a GGUF file: the one in its folder if that has the same tokens, else one made from its keys.

    Raises UsageError, which names it, for a pre-tokenizer, model or key that is not supported.
    """
    settings = {name.removeprefix(PREFIX): value for name, value in file.keys.items() if name.startswith(PREFIX)}
    if not settings.get("tokens"):
        raise UsageError(f"{file.path} holds no tokenizer")
    if (beside := _beside(file.path.parent, settings)) is not None:
        return beside
    unread = [name for name in settings if name not in KNOWN and not (name in NEUTRAL and not settings[name])]
    if unread:
        raise UsageError(f"{file.path} has the tokenizer key {PREFIX}{unread[0]}, which is not read; {CURE}")
    if len(set(settings["tokens"])) != len(settings["tokens"]):
        raise UsageError(f"{file.path} lists a token twice")
    model = settings.get("model")
    if model == "gpt2":
        tokenizer = _byte_level(file.path, settings)
    elif model == "llama":
        tokenizer = _sentence_pieces(file.path, settings)
    else:
        raise UsageError(f"{file.path} has a tokenizer of model {model!r}; known: gpt2, llama; {CURE}")
    return _finished(tokenizer, settings, file.keys)


CURE = "put the original model's tokenizer files (tokenizer.json, tokenizer_config.json) beside it"


def _beside(folder: Path, settings: Mapping[str, Any]) -> Any:
    """Return the tokenizer in a folder, or None if there is none, it is damaged, or it gives other tokens than the GGUF file."""
    if not (folder / "tokenizer.json").is_file() and not (folder / "tokenizer.model").is_file():
        return None
    try:
        tokenizer = read_tokenizer(folder)
    except Exception as error:  # libraries raise many kinds of exceptions for a damaged file
        log.warning("the tokenizer in %s cannot be read (%s); the GGUF file's own is used", folder, error)
        return None
    in_file = {token: number for number, token in enumerate(settings["tokens"])}
    beside = tokenizer.get_vocab()
    same = all(in_file.get(token) == number for token, number in beside.items()) and len(beside) > len(in_file) // 2
    begins = tokenizer("x")["input_ids"][:1] == [settings.get("bos_token_id")]
    if not same or begins != _begins(settings):
        log.warning("the tokenizer in %s is not the GGUF file's (other tokens, or another begin of text); the file's own is used", folder)
        return None
    return tokenizer


def _byte_level(path: Path, settings: Mapping[str, Any]) -> Any:
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    pre = settings.get("pre")
    if pre not in SPLITS:
        raise UsageError(f"{path} splits text by the pre-tokenizer {pre!r}, which is not known here; known: {', '.join(SPLITS)}; {CURE}")
    vocabulary = {token: number for number, token in enumerate(settings["tokens"])}
    merges = [tuple(merge.split(" ", 1)) for merge in settings.get("merges", ())]
    if not merges or any(len(merge) != 2 for merge in merges):
        raise UsageError(f"{path} has a byte-level tokenizer without merges, or with damaged ones; {CURE}")
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=pre in WHOLE_WORDS))
    splits = [pre_tokenizers.Split(Regex(pattern), "isolated") for pattern in SPLITS[pre]]
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([*splits, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _sentence_pieces(path: Path, settings: Mapping[str, Any]) -> Any:
    """Return a SentencePiece tokenizer: of all pairs that can be merged, the one whose result has the highest score is merged first."""
    from tokenizers import Tokenizer, decoders, models, normalizers

    tokens, scores = settings["tokens"], settings.get("scores", ())
    if len(scores) != len(tokens):
        raise UsageError(f"{path} has {len(tokens)} tokens and {len(scores)} scores; {CURE}")
    vocabulary = {token: number for number, token in enumerate(tokens)}
    joined = [
        (-scores[number], token[:cut], token[cut:])
        for number, token in enumerate(tokens)
        for cut in range(1, len(token))
        if token[:cut] in vocabulary and token[cut:] in vocabulary
    ]
    merges = [(left, right) for _, left, right in sorted(joined, key=lambda merge: merge[0])]
    unknown = tokens[settings["unknown_token_id"]] if "unknown_token_id" in settings else None
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    prefix = [normalizers.Prepend("▁")] if settings.get("add_space_prefix", True) else []
    tokenizer.normalizer = normalizers.Sequence([*prefix, normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence([decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()])
    return tokenizer


def _finished(tokenizer: Any, settings: Mapping[str, Any], keys: Mapping[str, Any]) -> Any:
    """Return the tokenizer with its special tokens added, and with begin and end tokens around texts if the file says so."""
    from tokenizers import AddedToken, processors
    from transformers import PreTrainedTokenizerFast

    tokens, kinds = settings["tokens"], settings.get("token_type", [NORMAL] * len(settings["tokens"]))
    added = [(token, kind) for token, kind in zip(tokens, kinds, strict=True) if kind in (CONTROL, USER_DEFINED)]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token, kind in added if kind == CONTROL])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token, kind in added if kind == USER_DEFINED])
    ids = {"bos_token": "bos_token_id", "eos_token": "eos_token_id", "unk_token": "unknown_token_id", "pad_token": "padding_token_id"}
    named = {name: tokens[settings[key]] for name, key in ids.items() if 0 <= settings.get(key, -1) < len(tokens)}
    first = [named["bos_token"]] if _begins(settings) and "bos_token" in named else []
    last = [named["eos_token"]] if settings.get("add_eos_token") and "eos_token" in named else []
    if first or last:
        numbers = [(token, tokens.index(token)) for token in {*first, *last}]
        tokenizer.post_processor = processors.TemplateProcessing(
            single=[*first, "$A", *last], pair=[*first, "$A", *last, *first, "$B", *last], special_tokens=numbers
        )
    template = {"chat_template": keys["tokenizer.chat_template"]} if "tokenizer.chat_template" in keys else {}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, clean_up_tokenization_spaces=False, **named, **template)


def _begins(settings: Mapping[str, Any]) -> bool:
    """Return whether texts begin with the begin-of-text token; if the file does not say, llama.cpp's default applies."""
    default = settings.get("model") == "llama" or settings.get("pre") in WHOLE_WORDS
    return bool(settings.get("add_bos_token", default))
