"""What a server is and what it serves, by its own words: nobody can verify the weights behind an address.

In: a `Client`.  Out: `Identity`, which is part of the run's key, so that two models or two quantizations that call themselves differently
never share a run. Asked again during a run, it shows a server that was restarted with another model.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from producer.served.client import Client, ServerError
from schemas.errors import UsageError
from schemas.levels import Level, parse_level
from schemas.private import shareable
from store.shown import printable

PLAIN = ("F32", "F16", "BF16")
CHANGES_BY_ITSELF = ("created", "object")  # `created` is the time of the question in llama.cpp and vLLM
LONGEST = 200
SGLANG = ("version", "model_path", "revision", "quantization", "dtype", "kv_cache_dtype", "attention_backend", "tp_size")
SGLANG_MODEL = ("model_path", "served_model_name", "weight_version", "load_format")  # changed by an update of the weights while it runs
TGI = ("model_id", "model_sha", "model_dtype", "version", "quantize")
LLAMA_CPP = ("model_path", "model_ftype", "build_info")
_SIZES = {" - Small": "_S", " - Medium": "_M", " - Large": "_L"}


@dataclass(frozen=True)
class Identity:
    """One model of one server.

    kind    : llama.cpp, vllm, sglang, tgi, or `other`.
    asked   : name of the model in requests.
    says    : everything else that the server says of itself, without paths.
    context : most tokens of a prompt with the token after it; None where the server does not say.
    """

    kind: str
    version: str
    asked: str
    says: Mapping[str, Any]
    context: int | None

    def in_key(self) -> dict[str, Any]:
        """Return what goes into the run's key."""
        return {"server": self.kind, "version": self.version, "served_model": shareable(self.asked), "says": dict(self.says)}

    @property
    def name(self) -> str:
        """The model's name without folders, and without the ending of a file."""
        name = PurePosixPath(self.asked).name if self.asked.startswith(("/", "~", ".")) else self.asked
        return name.removesuffix(".gguf")

    @property
    def level(self) -> str:
        """Name of the quantization that the server states, "" where it states none."""
        stated = self.says.get("model_ftype") or self.says.get("ftype") or self.says.get("quantization") or self.says.get("quantize") or ""
        return _level_name(str(stated))


def identify(client: Client, model: str = "") -> Identity:
    """Return what a server serves: its only model, or the one of this name.

    model : name of a model, "" for the only one. A server with one model serves that one under any name.
    Raises UsageError where the server has several models and none has the name, ServerError where its list cannot be read.
    """
    listed = client.ask("/v1/models")
    data = _dict(listed).get("data")
    models = [each for each in data if isinstance(each, dict)] if isinstance(data, list) else []
    entries = [each for each in models if isinstance(each.get("id"), str) and each["id"]]
    if not entries:
        raise ServerError(f"the server at {client.root} lists no model under /v1/models; expected an OpenAI-compatible server")
    named = [each for each in entries if each["id"] == model]
    if not named and len(entries) > 1:
        ids = ", ".join(printable(each["id"])[:LONGEST] for each in entries[:8])
        fault = f"none is called {model!r}" if model else "none was named"
        raise UsageError(f"the server at {client.root} has {len(entries)} models and {fault}; give one with --model: {ids}")
    entry = (named or entries)[0]
    kind, version, more = _kind(client, entry)
    says = _plain(entry) | _plain(_dict(entry.get("meta"))) | more
    context = next((says[name] for name in ("n_ctx", "max_model_len", "context_length") if isinstance(says.get(name), int)), None)
    return Identity(kind, version, entry["id"], {name: value for name, value in says.items() if name != "id"}, context)


def check_level(identity: Identity, method: str, level: Level) -> Level:
    """Return the level of a run: the one asked for, or for `checkpoint` without one what the server states.

    Raises UsageError where the two contradict each other.
    """
    stated = identity.level
    if not stated:
        return level
    if method == "dense":
        if stated in PLAIN:
            return level
        raise UsageError(f"the server says that it runs {stated}, which is not dense; use --method checkpoint --level {stated}")
    served = parse_level(stated)
    if level.kind == "none":
        return level if stated in PLAIN else served
    if served.bits is not None and level.bits is not None and abs(served.bits - level.bits) > 0.5:
        raise UsageError(f"the server says that it runs {stated}, and --level says {level.text}; leave --level out to use {stated}")
    return level


def _kind(client: Client, entry: Mapping[str, Any]) -> tuple[str, str, dict[str, Any]]:
    """Return kind and version of a server, and what its own addresses say."""
    owner = str(entry.get("owned_by", "")).lower()
    if owner == "llamacpp":
        settings = _plain(_dict(client.offers("/props")), LLAMA_CPP)
        return "llama.cpp", str(settings.pop("build_info", "")), settings
    if owner == "vllm":
        return "vllm", str(_dict(client.offers("/version")).get("version", "")), {}
    if owner == "sglang":
        if entry.get("parent"):
            raise UsageError(
                f"{entry['id']!r} is an adapter of {entry['parent']!r} at {client.root}, and SGLang would answer without it; "
                "merge the adapter into the weights and serve those"
            )
        settings = _plain(_dict(client.offers("/server_info") or client.offers("/get_server_info")), SGLANG)
        settings |= _plain(_dict(client.offers("/model_info") or client.offers("/get_model_info")), SGLANG_MODEL)
        return "sglang", str(settings.pop("version", "")), settings
    if info := _dict(client.offers("/info")):
        settings = _plain(info, TGI)
        return ("tgi" if "model_id" in settings else "other"), str(settings.pop("version", "")), settings
    return "other", "", {}


def _plain(settings: Mapping[str, Any], names: tuple[str, ...] = ()) -> dict[str, Any]:
    """Return the words, numbers and truth values of what a server says, paths shortened to their last name."""
    chosen = {name: settings[name] for name in names if name in settings} if names else settings
    plain = {}
    for name, value in chosen.items():
        if isinstance(name, str) and isinstance(value, str | bool | int) and name not in CHANGES_BY_ITSELF and value != "":
            plain[name[:LONGEST]] = printable(shareable(value))[:LONGEST] if isinstance(value, str) else value
    return dict(sorted(plain.items()))


def _level_name(stated: str) -> str:
    """Return a type of file as levels write it: `Q4_K - Medium` is Q4_K_M, `all F32` is F32."""
    name = stated.removeprefix("(guessed) ").removeprefix("all ").removeprefix("mostly ")
    for long, short in _SIZES.items():
        name = name.replace(long, short)
    name = name.partition(" ")[0].strip(",")
    return name if re.fullmatch(r"[A-Za-z][A-Za-z0-9._+-]{0,63}", name) and name.lower() not in ("none", "null", "nan", "unknown") else ""


def _dict(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
