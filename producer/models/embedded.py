"""The config and tokenizer of an embedded model as its files state them, read without transformers and torch.

In: the files of an embedded model.  Out: objects that answer as those of transformers do. A description of runs needs little of either, and
transformers takes ten times as long to import as everything else that it needs. What the files do not state is asked of the objects of
transformers, which are loaded then.
"""

import json
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any

from producer.models.find import REFERENCE_MODELS, ModelFiles

SPECIAL = ("bos_token", "eos_token", "unk_token", "pad_token")


def is_embedded(files: ModelFiles) -> bool:
    """Return whether these are the files of an embedded model, whose config.json states every setting."""
    return files.folder.parent == REFERENCE_MODELS


class EmbeddedConfig:
    """The settings in an embedded model's config.json."""

    quantization_config = kv_lora_rank = None  # settings that none of them has

    def __init__(self, files: ModelFiles) -> None:
        self._files = files
        self._settings = json.loads((files.folder / "config.json").read_text(encoding="utf-8"))

    def __getattr__(self, name: str) -> Any:
        """Return a setting: from config.json, else from the config of transformers."""
        if name.startswith("_"):  # what copying and pickling look for
            raise AttributeError(name)
        return self._settings[name] if name in self._settings else getattr(self.whole, name)

    @cached_property
    def whole(self) -> Any:
        """The config of transformers."""
        from producer.models.load import load_config

        return load_config(self._files)

    @cached_property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The shape of every stored tensor; tied ones are stored once."""
        return dict(self._shapes())

    def _shapes(self) -> Iterator[tuple[str, tuple[int, ...]]]:
        from safetensors import safe_open

        with safe_open(self._files.folder / "model.safetensors", framework="np") as tensors:
            yield from ((name, tuple(tensors.get_slice(name).get_shape())) for name in tensors.keys())  # noqa: SIM118  # no mapping

    def get_text_config(self) -> "EmbeddedConfig":
        """Return itself: the embedded models take text only."""
        return self


class EmbeddedTokenizer:
    """The tokenizer that an embedded model's tokenizer.json defines."""

    chat_template = None

    def __init__(self, files: ModelFiles) -> None:
        from tokenizers import Tokenizer

        self._files = files
        self._tokens = Tokenizer.from_file(str(files.folder / "tokenizer.json"))
        settings = json.loads((files.folder / "tokenizer_config.json").read_text(encoding="utf-8"))
        self.model_max_length = int(settings["model_max_length"])
        special = {name: settings[name] for name in SPECIAL if name in settings}
        self.all_special_tokens = list(special.values())
        self.bos_token_id, self.eos_token_id, self.unk_token_id = (
            self._tokens.token_to_id(special[name]) if name in special else None for name in ("bos_token", "eos_token", "unk_token")
        )

    def __getattr__(self, name: str) -> Any:
        """Return what only the tokenizer of transformers has."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self.whole, name)

    @cached_property
    def whole(self) -> Any:
        """The tokenizer of transformers."""
        from producer.models.load import load_tokenizer

        return load_tokenizer(self._files)

    def __call__(
        self,
        text: str | Sequence[str],
        *,
        add_special_tokens: bool = True,
        truncation: bool = False,
        max_length: int | None = None,
        verbose: bool = True,
    ) -> dict[str, Any]:
        """Return the token ids of a text, or of each, under `input_ids`.

        truncation, max_length : whether to keep only so many, the first ones.
        verbose : whether transformers may warn of a long text; here nothing warns.
        """
        texts = [text] if isinstance(text, str) else list(text)
        most = max_length if truncation else None
        encoded = [each.ids[:most] for each in self._tokens.encode_batch(texts, add_special_tokens=add_special_tokens)]
        return {"input_ids": encoded[0] if isinstance(text, str) else encoded}

    def convert_ids_to_tokens(self, ids: int | Sequence[int]) -> Any:
        """Return the text of a token, or of each."""
        return self._tokens.id_to_token(ids) if isinstance(ids, int) else [self._tokens.id_to_token(each) for each in ids]
