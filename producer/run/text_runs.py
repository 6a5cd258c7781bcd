"""Runs over a text: the text in a model's tokens, the keys of its runs, and the runs made of what the model found at every token.

In: a request's text, a model.  Out: `ModelText`; `Run`s whose items are documents.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from producer.backends.base import Ready
from producer.engine.text_fidelity import Windows, cut_windows
from producer.machine.environment import environment
from producer.request.planned import Model, ModelText, PlannedText
from producer.request.text_source import Text, load_text
from schemas.digest import json_digest
from schemas.errors import UsageError
from schemas.run import UNKNOWN_TOKEN, Environment, Run, RunKey, TokenArrays

PROMPT = "text"  # name of the prompt of runs over a text, which has none
LENGTH = 2048  # most tokens that a model reads at once, as in the papers on GPTQ, SparseGPT and Wanda
OVERLAP = 200  # characters without spaces by which a document is recognised
MAX_UNKNOWN = 0.3  # largest accepted share of tokens unknown to the tokenizer


def model_text(model: Model, name: str) -> ModelText:
    """Return a text in a model's tokens, as windows of at most 2,048 tokens within each document.

    Raises UsageError for text that the tokenizer does not know, or in which nothing can be foretold.
    """
    text, tokenizer = load_text(name), model.tokenizer
    context = getattr(model.config.get_text_config(), "max_position_embeddings", None) or tokenizer.model_max_length
    length = min(LENGTH, int(context))
    ids = [list(tokenizer(document, add_special_tokens=False, verbose=False)["input_ids"]) for document in text.documents]
    unknown = getattr(tokenizer, "unk_token_id", None)
    share = float(np.mean(np.concatenate([np.asarray(row) == unknown for row in ids]))) if unknown is not None else 0.0
    if share > MAX_UNKNOWN:
        raise UsageError(f"the tokenizer of {model.files.name!r} does not know {share:.0%} of text {name!r}; use text that it can read")
    windows, counts = cut_windows(ids, list(tokenizer("")["input_ids"]), length)
    with_text = [number for number, count in enumerate(counts) if count]
    if not with_text:
        raise UsageError(f"text {name!r} has no document of two tokens or more")
    documents = tuple(text.documents[number] for number in with_text)
    digest = json_digest([list(window.tokens) for window in windows])
    cut = Windows(windows, tuple(counts[number] for number in with_text), digest, length)
    return ModelText(Text(text.name, documents), cut, len(ids) - len(with_text))


def text_key(text: ModelText, shared: Mapping[str, Any]) -> RunKey:
    """Return the key of a run over a text. shared : the fields that do not depend on what is asked."""
    return RunKey(
        **shared,
        task=text.text.task,
        items_hash=text.item_set.digest,
        prompt=PROMPT,
        tokens_hash=text.windows.digest,
        sampling={"window": text.windows.length},
    )


def check_text_overlap(name: str, data: str, text: ModelText) -> None:
    """Raise UsageError if compression data contain the beginning of a document: the model would be compressed for the text itself."""
    drawn = "".join(data.split())
    for number, document in enumerate(text.text.documents):
        start = "".join(document.split())[:OVERLAP]
        if start and start in drawn:
            raise UsageError(
                f"compression data {name!r} contain document {number} of text {text.text.name!r}; use other text for one of them"
            )


def text_run(planned: PlannedText, tokens: TokenArrays, env: Environment) -> Run:
    """Return the run over a text; a document's one logit is the mean log-probability of its tokens."""
    assert planned.key is not None, "weights are fetched before a run is made"
    starts, n_documents = tokens.offsets[:-1], len(tokens.offsets) - 1
    means = np.add.reduceat(tokens.logprob.astype(np.float64), starts) / np.diff(tokens.offsets)
    return Run(
        planned.key,
        means.astype(np.float32)[:, None],
        np.zeros(n_documents, np.float32),
        np.full(n_documents, UNKNOWN_TOKEN, np.int32),
        env,
        tokens,
    )


def text_environment(planned: PlannedText, model: Model, seconds: float, ready: Ready) -> Environment:
    """Return the record of how a run over a text was made."""
    text = planned.text
    left_out = f"{text.n_left_out} documents of {text.text.name} are left out: none of their tokens can be foretold"
    return environment(
        model.device,
        duration_s=seconds,
        tokens=text.windows.n_tokens,
        parameters=ready.parameters,
        notes=(left_out,) if text.n_left_out else (),
        post_conditions=ready.conditions,
        throughput=ready.cost,
    )
