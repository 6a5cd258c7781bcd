"""Backend `server`: the model as it is deployed, behind an OpenAI-compatible address. Token ids are sent, never text.

The weights behind an address are unverified: the run's key holds what the server says of itself, and canary prompts show whether the same
model answers from the start of a run to its end (`producer.served`).
"""

import time
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from producer.backends.base import Ready
from producer.engine.checkpoints import NOTHING_KEPT, Keep
from producer.engine.prefill import Answers, Done
from producer.engine.settings import Settings
from producer.machine.journal import Journal
from producer.prompts.encode import option_tokens
from producer.request.planned import PromptedTask, RunGroup
from producer.request.served_model import ServedModel
from producer.served.canary import LETTERS
from producer.served.forms import Asker
from producer.served.questions import Questions, text_names
from schemas.errors import UsageError
from schemas.levels import Level

METHODS = ("dense", "checkpoint")
CANARIES, SPREAD = "canary_log_probs", "canary_spread"
QUESTION = (  # fields of a run's key that are about what is asked, which the tokens of each prompt say exactly
    *("task", "items_hash", "prompt", "prompt_hash", "tokens_hash", "option_token_ids", "option_tokens", "sampling"),
)
UNCOMPARED = "the server does not say how it splits text, so that --tokenizer is its model's own could not be checked"


class ServerBackend:
    """Any OpenAI-compatible server (llama.cpp, vLLM, SGLang): the model as it is deployed, at --url."""

    def check(self, config: Any, methods: Sequence[str]) -> None:
        """Raise UsageError for a method that compresses: a server runs what it was started with."""
        if unable := [name for name in methods if name not in METHODS]:
            raise UsageError(f"backend 'server' asks a model as it is served: {', '.join(METHODS)}, not {', '.join(unable)}")

    def ready(self, group: RunGroup, levels: Sequence[Level], settings: Settings) -> Iterator[Ready]:
        """Yield the served model, after a probe for the form of question that it answers."""
        model = group.model
        assert isinstance(model, ServedModel), "plans for this backend hold served models"
        names = text_names(model.tokenizer)
        asker = Asker(model.client, model.identity, model.config.get_text_config().vocab_size, names)
        questions = Questions(asker, model.tokenizer, option_tokens(model.tokenizer, LETTERS).ids, settings.concurrency)
        compared = min(_compared(questions, run.prompted) for run in group.runs)
        conditions = {
            "weights": "as the server says, not verified",
            "request_form": questions.form.name,
            "prompts_with_tokens_compared": compared,
            SPREAD: questions.canaries.spread,
            CANARIES: [round(float(value), 5) for value in questions.canaries.table.ravel()],
        }

        notes = () if compared else (UNCOMPARED,)

        # This backend keeps answers by itself, after every few requests: they are good only while the canaries' answers stay.
        journal = questions.journal(_answerer(group), fresh=settings.fresh)

        def answer(prompted: PromptedTask, done: Done, keep: Keep = NOTHING_KEPT, /) -> Answers:
            return _answer(questions, journal, prompted, done, notes)

        yield Ready(levels[0], conditions, 0, answer, journal.remove)


def _answerer(group: RunGroup) -> dict[str, Any]:
    """Return what the group's keys say of everything but the questions."""
    key = group.runs[0].key
    assert key is not None, "the key of a served model needs no weights"
    return {name: value for name, value in key.content().items() if name not in QUESTION}


def _compared(questions: Questions, prompted: PromptedTask) -> int:
    """Return for how many prompts the server's tokens were compared with ours."""
    whole = [i for i, cut in enumerate(prompted.prompts.cut) if not cut][:3]
    return questions.compare_tokens(
        [prompted.text(i) for i in whole],
        [prompted.prompts.whole(i) for i in whole],
        special=prompted.chat is None or prompted.chat.adds_special,
    )


def _answer(questions: Questions, journal: Journal, prompted: PromptedTask, done: Done, before: tuple[str, ...]) -> Answers:
    prompts, clock = prompted.prompts, time.perf_counter()
    whole = [prompts.whole(i) for i in range(len(prompts.suffixes))]
    logprobs, top, notes = questions.answers(whole, prompted.options.ids, prompts.n_options, journal, done)
    seconds = time.perf_counter() - clock
    rates = {"items_per_s": len(whole) / seconds, "tokens_per_s": prompts.tokens / seconds}
    return Answers(logprobs, np.zeros(len(whole), np.float32), top, prompts.tokens, 0.0, rates, notes=(*before, *notes))
