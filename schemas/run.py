"""A run: which model answered which items, the resulting logits, and where they were computed.

`RunKey` is the identity (runs with equal keys are the same run), `Environment` says where it was computed, `Run` has both and the arrays.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field

from schemas.digest import arrays_digest, json_digest
from schemas.errors import HedgemarkError, NonFiniteError
from schemas.levels import NO_LEVEL
from schemas.options import by_option, own_options

FloatArray = NDArray[np.float32]
LARGEST = 2**63  # whole numbers are smaller than this, so that they fit in a 64-bit column
Count = Annotated[int, Field(ge=0, lt=LARGEST)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
DENSE = "dense"
CHECKPOINT = "checkpoint"  # the method of a model that was compressed elsewhere
SINCE_VERSION_2 = ("tokens_hash",)
UNKNOWN_TOKEN = -1  # top_token of an imported run, whose full vocabulary was never seen


class RunKey(BaseModel):
    """Everything that can change a logit; its digest identifies the run.

    Required are `model`, `method`, `task`, `items_hash` (the digest of the item set) and `prompt`; the comments below describe the others.

    Raises
    ------
    pydantic.ValidationError
        If a field is missing, unknown or of a wrong type.

    Examples
    --------
    >>> key = RunKey(model="org/my-model", method="wanda", level="0.5", task="mmlu", items_hash="3f" * 32, prompt="base")
    >>> key.name
    'org_my-model~wanda~0.5~mmlu~base.7f9849f1'
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    model: str
    revision: str = ""  # commit of a Hub model; "" for a local folder
    weights_hash: str = ""  # SHA-256 over the weight files; "" for imported logits and for models behind a server
    method: str
    level: str = NO_LEVEL
    method_settings: Mapping[str, Any] = Field(default_factory=dict)
    compression_data_hash: str = ""  # "" for a method that sees no data
    task: str
    items_hash: str
    prompt: str
    prompt_hash: str = ""  # SHA-256 of the rendered prefix and the item template, chat template included
    tokens_hash: str = ""  # SHA-256 of the token ids of every prompt; "" if unknown (imported runs, schema version 1)
    option_token_ids: tuple[int, ...] = ()
    option_tokens: tuple[str, ...] = ()
    dtype: str = "float32"
    backend: str = "transformers"
    seed: Annotated[int, Field(ge=-LARGEST, lt=LARGEST)] = 0
    sampling: Mapping[str, Any] = Field(default_factory=dict)  # e.g. {"limit": 100}; {} means every item

    def content(self) -> dict[str, Any]:
        """Return what is hashed: every field, except empty fields of later schema versions, so that old runs keep their digests."""
        fields = self.model_dump(mode="json")
        return {name: value for name, value in fields.items() if value or name not in SINCE_VERSION_2}

    @property
    def digest(self) -> str:
        """SHA-256 of the canonical JSON of the key, 64 hex digits."""
        return json_digest(self.content())

    @property
    def settings_hash(self) -> str:
        """SHA-256 of the method's settings; "" where it has none."""
        return json_digest(self.model_dump(mode="json")["method_settings"]) if self.method_settings else ""

    @property
    def name(self) -> str:
        """Name of the run's group in the store: a readable slug and the first eight digits of the digest."""
        parts = [self.model, self.method, *([] if self.level == NO_LEVEL else [self.level]), self.task, self.prompt]
        return f"{'~'.join(map(_slug, parts))}.{self.digest[:8]}"


class Environment(BaseModel):
    """Where and how a run was computed, and what was measured; not part of its identity."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    libraries: Mapping[str, str] = Field(default_factory=dict)  # name -> version
    device: str = ""
    driver: str = ""
    host_os: str = ""
    command: str = ""
    created: str = ""  # UTC, ISO 8601
    duration_s: Finite = 0.0
    tokens: Count = 0  # tokens that the model processed; the shared prefix counts once
    peak_memory_bytes: Count = 0
    parameters: Count = 0  # of the dense model
    truncated_items: Count = 0  # prompts that lost their beginning to fit the context
    dropped_items: Count = 0  # items of the task that were left out because they are ambiguous
    notes: tuple[str, ...] = ()  # warnings of `produce`: doubtful items, truncated prompts, fallbacks
    origin: str = ""  # imported runs: format, file and its SHA-256
    post_conditions: Mapping[str, Any] = Field(default_factory=dict)  # measured by the checks of the compression method
    # items, tokens, operations per second; share of the matrix peak; seconds and peak memory of the compression, see layout.md
    throughput: Mapping[str, Finite] = Field(default_factory=dict)
    noise_floor: Mapping[str, Finite] = Field(default_factory=dict)  # measured by --self-check


@dataclass(frozen=True)
class TokenArrays:
    """What a run over a text found at every token that the model had to foretell, document after document.

    Parameters
    ----------
    logprob : (token,) float32, log-probability of the token, nats.
    kl : (token,) float32, KL(dense || this model) over the full vocabulary, nats; 0 for the dense model itself.
    same_top : (token,) bool, whether the most likely token is the dense model's.
    offsets : (document + 1,) int64; document i has the tokens offsets[i] to offsets[i + 1].
    """

    logprob: FloatArray
    kl: FloatArray
    same_top: NDArray[np.bool_]
    offsets: NDArray[np.int64]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the stored arrays by name."""
        arrays: dict[str, NDArray[Any]] = {"token_logprob": self.logprob, "token_kl": self.kl, "token_same_top": self.same_top}
        return arrays | {"document_offsets": self.offsets}

    def problem(self, n_documents: int) -> str | None:
        """Return why these cannot be the arrays of so many documents, None if they can."""
        n_tokens = len(self.logprob)
        if any(array.shape != (n_tokens,) for array in (self.kl, self.same_top)) or self.offsets.shape != (n_documents + 1,):
            return f"its token arrays do not fit {n_documents} documents"
        if self.offsets[0] != 0 or self.offsets[-1] != n_tokens or np.any(np.diff(self.offsets) < 1):
            return "its documents do not divide its tokens"
        if not (np.all(np.isfinite(self.kl)) and np.all(np.isfinite(self.logprob))):
            return "a token has no finite log-probability or KL"
        if float(self.kl.min()) < 0 or float(self.logprob.max()) > 0:
            return "a KL is below 0, or a log-probability above 0"
        return None


MASS_ROUNDING = 1e-4  # rounding error of a log-sum-exp in float32


@dataclass(frozen=True)
class Run:
    """One run with its arrays.

    Parameters
    ----------
    key : identity of the run.
    logits : (item, option) float32, raw, in the order of the item set; NaN for options that an item does not have.
    logsumexp : (item,) float32, log-sum-exp of the logits over the full vocabulary; NaN if it was not recorded (imported runs).
    top_token : (item,) int32, most likely token of the full vocabulary; -1 if it was not recorded.
    env : where and how the run was computed.
    tokens : what a run over a text found at each of its tokens; None for runs over items.

    Raises
    ------
    HedgemarkError, NonFiniteError
        From `check`, if the arrays do not fit the items, or a logit is not finite.

    Examples
    --------
    >>> key = RunKey(model="m", method="dense", task="quiz", items_hash="0" * 64, prompt="base")
    >>> run = Run(key, np.array([[1, 3], [2, 0]], np.float32), np.full(2, np.nan, np.float32), np.full(2, UNKNOWN_TOKEN, np.int32))
    >>> run.check(n_options=np.array([2, 2]))
    >>> len(run.digest)
    64
    """

    key: RunKey
    logits: FloatArray
    logsumexp: FloatArray
    top_token: NDArray[np.int32]
    env: Environment = field(default_factory=Environment)
    tokens: TokenArrays | None = None

    def __repr__(self) -> str:
        """Say which run this is, without its arrays."""
        n_items, width = self.logits.shape
        return f"<Run {self.key.name}: logits of {n_items} items, {width} options>"

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return the stored arrays by name."""
        arrays = {"logits": self.logits, "logsumexp": self.logsumexp, "top_token": self.top_token}
        return {**arrays, **(self.tokens.arrays() if self.tokens else {})}

    @cached_property
    def digest(self) -> str:
        """SHA-256 over the arrays and the key; equal digests mean equal content."""
        return arrays_digest(self.key.content(), self.arrays())

    def check(self, n_options: NDArray[np.integer[Any]], *, allow_nonfinite: bool = False) -> None:
        """Raise HedgemarkError if shapes disagree with the items, NonFiniteError if an option has no finite logit."""
        n_items, width = len(n_options), int(n_options.max())
        if self.logits.shape != (n_items, width) or self.logsumexp.shape != (n_items,) or self.top_token.shape != (n_items,):
            raise HedgemarkError(
                f"run {self.key.name}: logits {self.logits.shape}, logsumexp {self.logsumexp.shape}, top_token "
                f"{self.top_token.shape} do not fit {n_items} items of up to {width} options"
            )
        if self.tokens and (problem := self.tokens.problem(n_items)):
            raise HedgemarkError(f"run {self.key.name}: {problem}")
        if (self.tokens is None) == (width == 1):
            raise HedgemarkError(f"run {self.key.name}: documents of a text have one option each, and only they have token arrays")
        broken = nonfinite_items(self.logits, n_options)
        if broken and not allow_nonfinite:
            raise NonFiniteError(
                f"run {self.key.name}: {broken} of {n_items} items have NaN or infinite logits; --allow-nonfinite stores them, flagged"
            )

    def too_much_mass(self, n_options: NDArray[np.integer[Any]]) -> str | None:
        """Return an error message if an item's options have a total probability above 1 in the vocabulary, else None.

        A 16-bit logit has a relative error of 2^-8, and the logits of options and of the vocabulary may come from separate products; larger
        differences are not rounding. Such a run is neither produced nor imported; if it is already stored, it is read and flagged.
        """
        has_logit = own_options(n_options, self.logits.shape[1]) & np.isfinite(self.logits)
        logits = by_option(np.where(has_logit, self.logits, np.float32(-np.inf)))
        highest = np.maximum(logits.max(axis=0), np.finfo(np.float32).min)
        with np.errstate(invalid="ignore", divide="ignore"):  # an item without any finite logit has no mass
            option_logsumexp = highest + np.log(np.exp(logits - highest).sum(axis=0, dtype=np.float64))
        relative = 2.0**-20 if self.key.dtype == "float32" else 2.0**-7
        excess = option_logsumexp - self.logsumexp - relative * (1 + np.abs(highest)) - MASS_ROUNDING
        if not np.any(excess > 0):
            return None
        item = int(np.nanargmax(excess))
        mass = math.exp(min(float(option_logsumexp[item] - self.logsumexp[item]), 700))
        beyond = f"the options of item {item} hold {mass:.4g} of the vocabulary's"
        return f"{beyond} probability, more than all of it: logsumexp and logits disagree"


def nonfinite_items(logits: FloatArray, n_options: NDArray[np.integer[Any]]) -> int:
    """Return the number of items with a NaN or infinite logit among their own options."""
    broken = own_options(n_options, logits.shape[1]) & ~np.isfinite(logits)
    return int(broken.any(axis=1).sum()) if broken.any() else 0


def _slug(text: str) -> str:
    return re.sub(r"[^A-Za-z0-9._:-]+", "_", text).strip("._")[:48] or "_"
