"""A model behind an address: what `producer.request.planned.Model` is for files, with the server in place of weights.

In: a `Request` with backend `server`.  Out: `ServedModel`, and the settings of its key. The tokenizer is read from files or the Hub;
weights are never fetched.
"""

from dataclasses import dataclass
from typing import Any

from producer.models.find import ModelFiles, find_model
from producer.models.load import load_config, load_tokenizer
from producer.request.planned import Model
from producer.request.request import SERVED_AS, Request
from producer.served.client import Client
from producer.served.identity import Identity, check_level, identify
from schemas.errors import UsageError
from schemas.levels import Level, parse_level, parse_levels


@dataclass(frozen=True)
class ServedModel(Model):
    """A model behind an address. `files` has its name in the store and the folder of its tokenizer."""

    client: Client
    identity: Identity


@dataclass(frozen=True)
class _ServedConfig:
    """What is known of a served model in the words of a config."""

    vocab_size: int
    max_position_embeddings: int

    def get_text_config(self) -> "_ServedConfig":
        """Return itself."""
        return self


def open_served(request: Request) -> ServedModel:
    """Return the model that the request's server serves.

    Raises UsageError for options that mean nothing to a server, and for a tokenizer that cannot be read.
    """
    model_name = request.models[0] if request.models else ""
    for kind, values in (("model", request.models), ("method", request.methods), ("level", parse_levels(request.levels))):
        if len(values) > 1:
            raise UsageError(f"a server runs one model as it is; give one --{kind}, not {len(values)}")
    files = find_model(request.tokenizer)
    tokenizer = load_tokenizer(files)
    client = Client(request.url, request.settings.request_timeout)
    identity = identify(client, model_name)
    named = ModelFiles(model_name or identity.name, files.folder)
    return ServedModel(named, _config(files, tokenizer, identity), tokenizer, f"server: {identity.kind}", SERVED_AS, client, identity)


def served_level(model: ServedModel, method: str, request: Request) -> Level:
    """Return the level of the runs of a served model: the one asked for, or what the server states."""
    asked = parse_levels(request.levels)
    level = check_level(model.identity, method, asked[0] if asked else parse_level(""))
    if method == "dense" and level.kind != "none":
        raise UsageError(f"method 'dense' has no level {level.text!r}; use --method checkpoint --level {level.text}")
    return level


def _config(files: ModelFiles, tokenizer: Any, identity: Identity) -> _ServedConfig:
    """Return size of vocabulary and context; the token after the prompt needs a place in the server's context too."""
    config = load_config(files).get_text_config()
    limits = [getattr(config, "max_position_embeddings", None), tokenizer.model_max_length, identity.context and identity.context - 1]
    return _ServedConfig(max(config.vocab_size, len(tokenizer)), int(min(limit for limit in limits if limit)))
