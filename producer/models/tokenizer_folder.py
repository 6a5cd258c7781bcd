"""Read the tokenizer of a model folder as its files define it, since transformers 5 rebuilds some from their vocabulary alone.

In: a folder.  Out: a fast tokenizer. Classes such as LlamaTokenizer use their own pre-tokenizer instead of the one in tokenizer.json, and
omit the begin-of-text token that version 4 put before every text; many byte-level models name such a class. A model that is given wrong
tokens looks damaged, so the tokenizer must give the tokens of tokenizer.json.
"""

import json
import logging
from pathlib import Path
from typing import Any

from schemas.errors import UsageError
from store.shown import silent

log = logging.getLogger(__name__)

# Pre-tokenizers differ in how they split digits, runs of blanks, apostrophes, line ends and other scripts.
PROBES = ("Question: On day 48213, is it 3.14159?\nAnswer: A", "Hello  World's 12 don't DON'T\t\n\n  x", "Übung 日本語 🙂", " leading")
BEGIN_BY_SETTING = ("LlamaTokenizer", "CodeLlamaTokenizer", "GemmaTokenizer")  # `add_bos_token` decides for these, and is true by default


def read_tokenizer(folder: Path) -> Any:
    """Return the tokenizer of a folder.

    Raises UsageError if it gives other tokens than tokenizer.json or does not begin texts as its settings say; also what libraries raise.
    """
    with silent(1):  # the tokenizers library prints names of unknown settings there, between the results
        return _read_tokenizer(folder)


def _read_tokenizer(folder: Path) -> Any:
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    tokenizer: Any = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
    stored, settings = _stored(folder), _settings(folder)
    if stored is not None and not _same(tokenizer, stored):
        log.warning("%s: transformers' %s splits text differently from tokenizer.json, which is used", folder, type(tokenizer).__name__)
        tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        if not _same(tokenizer, stored):
            raise UsageError(f"the tokenizer in {folder} does not give the tokens of its tokenizer.json")
    begins = _begins(stored, settings)
    if begins is not None and tokenizer.bos_token_id is not None and begins != _first_is_begin(tokenizer):
        tokenizer.add_bos_token = begins
        if begins != _first_is_begin(tokenizer):
            raise UsageError(f"the tokenizer in {folder} cannot be made to begin texts as add_bos_token says ({begins})")
    return tokenizer


def _stored(folder: Path) -> Any:
    """Return the tokenizer in tokenizer.json, without truncation or padding; None if there is no such file."""
    from tokenizers import Tokenizer

    if not (folder / "tokenizer.json").is_file():
        return None
    stored = Tokenizer.from_file(str(folder / "tokenizer.json"))
    stored.no_truncation()
    stored.no_padding()
    return stored


def _settings(folder: Path) -> dict[str, Any]:
    path = folder / "tokenizer_config.json"
    settings = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return settings if isinstance(settings, dict) else {}


def _same(tokenizer: Any, stored: Any) -> bool:
    return all(
        tokenizer(text, add_special_tokens=False)["input_ids"] == stored.encode(text, add_special_tokens=False).ids for text in PROBES
    )


def _begins(stored: Any, settings: dict[str, Any]) -> bool | None:
    """Return whether texts are to begin with the begin-of-text token; None where tokenizer.json alone decides.

    If the setting is absent, they do, unless tokenizer.json has a post-processor, which then decides.
    """
    if str(settings.get("tokenizer_class")).removesuffix("Fast") not in BEGIN_BY_SETTING:
        return None
    add_bos = settings.get("add_bos_token")
    if isinstance(add_bos, bool):
        return add_bos
    return True if stored is None or stored.post_processor is None else None


def _first_is_begin(tokenizer: Any) -> bool:
    return bool(tokenizer("x")["input_ids"][:1] == [tokenizer.bos_token_id])
