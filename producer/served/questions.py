"""Ask a served model every prompt of a run: several at a time, with canaries in between.

In: an `Asker`, prompts, option tokens.  Out: log-probabilities (item, option) and most likely tokens, or a ServerError; never a made-up
number.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from producer.machine.journal import Journal, question_id
from producer.served.bounds import Bounded, check_bounds
from producer.served.canary import LETTERS, TEXTS, Canaries, Table, allowed_change
from producer.served.client import ServerError
from producer.served.forms import Asker, Form, Reply, find_form
from producer.served.identity import identify

log = logging.getLogger(__name__)

AT_ONCE_PER_THREAD = 16
COMPARED = 3  # prompts whose tokens the server is asked for


class Questions:
    """One served model, ready to be asked.

    tokenizer : the model's own; texts never go to the server but to compare tokens.
    letters   : token ids of the letters of the canaries.
    threads   : requests at a time.
    """

    def __init__(self, asker: Asker, tokenizer: Any, letters: Sequence[int], threads: int) -> None:
        self._asker, self._threads, self._letters = asker, threads, list(letters[:LETTERS])
        self._prompts: list[list[int]] = [tokenizer(text)["input_ids"] for text in TEXTS]
        self.form: Form = find_form(asker, self._prompts[0], self._letters)
        self.canaries = Canaries(self._ask_canaries)

    def compare_tokens(self, texts: Sequence[str], prompts: Sequence[Sequence[int]], *, special: bool) -> int:
        """Return for how many prompts the server gives the same tokens, 0 where it has no tokenizer to ask.

        Raises ServerError where its tokens differ, since the model then reads other words than the prompt's.
        """
        for text, prompt in list(zip(texts, prompts, strict=True))[:COMPARED]:
            asked = {"model": self._asker.identity.asked, "prompt": text, "content": text, "add_special": special}
            reply = self._asker.client.offers("/tokenize", {**asked, "add_special_tokens": special})
            tokens = reply.get("tokens") if isinstance(reply, dict) else None
            if not isinstance(tokens, list) or not all(isinstance(token, int) for token in tokens):
                return 0
            if tokens[: len(prompt)] != list(prompt):
                position = next((i for i, (a, b) in enumerate(zip(tokens, prompt, strict=False)) if a != b), min(len(tokens), len(prompt)))
                raise ServerError(
                    f"the server's tokenizer gives {tokens[position : position + 3]} at position {position} of a prompt and --tokenizer "
                    f"gives {list(prompt[position : position + 3])}; --tokenizer must be that of the model served"
                )
        return min(COMPARED, len(texts))

    def journal(self, answerer: Mapping[str, Any], *, fresh: bool) -> Journal:
        """Return the journal of this server's answers; those under which other canaries stand are not taken.

        fresh : whether to take none.
        """

        def accept(given_under: Any) -> bool:
            before, spread = np.array(given_under["canaries"], np.float64), float(given_under["spread"])
            now = self.canaries
            same = before.shape == now.table.shape
            return not fresh and same and float(np.abs(now.table - before).mean()) <= allowed_change(max(now.spread, spread))

        where = {"url": self._asker.client.root, "form": self.form.name}
        journal = Journal({**answerer, **where}, {"canaries": self.canaries.table.tolist(), "spread": self.canaries.spread}, accept)
        if journal.left_out and not fresh:
            log.warning(
                "%d answers that an earlier command did not store are left out: the server answers the canary prompts otherwise now, so "
                "that they may be another model's",
                journal.left_out,
            )
        return journal

    def answers(
        self,
        prompts: Sequence[Sequence[int]],
        options: Sequence[int],
        n_options: Sequence[int],
        journal: Journal,
        done: Callable[[int], None],
    ) -> tuple[NDArray[np.float32], NDArray[np.int32], tuple[str, ...]]:
        """Return log-probabilities (item, option), most likely tokens (item,), -1 if unknown, and notes.

        n_options : (item,) how many of the options an item has.
        journal   : its answers are taken, and what is asked is added, once the canaries have shown that the same model still answers.
        done      : called after every few prompts with their number; it may raise to stop.
        """
        questions = [(prompt, options[:number]) for prompt, number in zip(prompts, n_options, strict=True)]
        ids = [question_id(list(prompt), list(option_ids)) for prompt, option_ids in questions]
        answered_before = {item: journal.answer(each) for item, each in enumerate(ids)}
        replies = {item: Reply.from_json(answer) for item, answer in answered_before.items() if answer is not None}
        notes: tuple[str, ...] = ()
        if replies:
            notes = (f"{len(replies)} of {len(questions)} answers are those to an earlier command, which was cut off",)
            log.warning("%d items: %d found, %d asked", len(questions), len(replies), len(questions) - len(replies))
            done(len(replies))
        self.check("at the start of the run")
        asked = [item for item in range(len(questions)) if item not in replies]
        interruptions, step = self._asker.client.interruptions, AT_ONCE_PER_THREAD * self._threads
        with ThreadPoolExecutor(self._threads) as pool:
            for start in range(0, len(asked), step):
                batch = asked[start : start + step]
                try:
                    answered = dict(zip(batch, pool.map(lambda item: self.form.ask(*questions[item]), batch), strict=True))
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
                cut = "after a connection broke off" if self._asker.client.interruptions > interruptions else "during the run"
                self.check(cut if start + step < len(asked) else "at the end of the run")
                interruptions = self._asker.client.interruptions
                complete = {item: reply for item, reply in answered.items() if reply.logprobs.keys() >= set(questions[item][1])}
                journal.add({ids[item]: reply.of(questions[item][1]).as_json() for item, reply in complete.items()})
                replies |= answered
                done(len(batch))
        in_order = [replies[item] for item in range(len(questions))]
        bounded = Bounded.of(in_order, options, n_options)
        return bounded.logprobs, np.array([reply.top for reply in in_order], np.int32), (*notes, *check_bounds(bounded))

    def check(self, when: str) -> None:
        """Raise ServerError if what the server says of itself has changed, or its answers to the canaries have."""
        now, before = identify(self._asker.client, self._asker.identity.asked), self._asker.identity
        if now != before:
            old, new = before.in_key(), now.in_key()
            names = [name for name in old if old[name] != new[name]]
            changes = ", ".join(f"{name} {old[name]!r:.80} became {new[name]!r:.80}" for name in names) or "its context changed"
            raise ServerError(f"another model answers at {self._asker.client.root} {when}: {changes}; nothing of this run is stored")
        self.canaries.check(when)

    def _ask_canaries(self, repeats: int) -> list[Table]:
        with ThreadPoolExecutor(self._threads) as pool:
            replies = list(pool.map(lambda ids: self.form.ask(ids, self._letters), self._prompts * repeats))
        rows = [[reply.logprobs.get(token, reply.bound) for token in self._letters] for reply in replies]
        if any(value is None for row in rows for value in row):
            raise ServerError(f"the server at {self._asker.client.root} leaves options out of its answers without any bound for them")
        return list(np.array(rows, np.float64).reshape(repeats, len(self._prompts), -1))


def text_names(tokenizer: Any) -> Callable[[], dict[str, int]]:
    """Return a function for the ids of all tokens by their text, without texts that several tokens share."""

    @cache
    def names() -> dict[str, int]:
        texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
        ids: dict[str, int] = {}
        shared = set()
        for token, text in enumerate(texts):
            shared.update({text} & ids.keys())
            ids[text] = token
        return {text: token for text, token in ids.items() if text not in shared}

    return names
