"""Forms of one question: the log-probabilities of a few tokens after a prompt of token ids. Each kind of server has its own.

In: a `Client`, an `Identity`, token ids.  Out: `Reply`s, checked. A server ignores fields that it does not know without a word, so a form
counts as offered only when its answer holds what was asked for.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from producer.served.client import Client, NotOfferedError, ServerError
from producer.served.identity import Identity

AS_ID = "token_id:"  # vLLM's way to write a token
FIRST_TOP, LARGER = 2000, 10  # of the most likely tokens: how many are asked for first, and the factor of each further request
CAPS = (1000, 100, 20, 10, 5)  # tried where a server refuses more
STAND_IN = -9999.0  # vLLM writes this where it has minus infinity
ROUNDING = 1e-3
UNKNOWN = -1


class Reply(NamedTuple):
    """Log-probabilities of tokens, by token id; the most likely token; and a bound for those that were left out.

    bound  : no token left out has a log-probability above it; None where nothing can be said of them.
    listed : number of tokens that the server listed, also those whose text belongs to several tokens.
    """

    logprobs: dict[int, float]
    top: int
    bound: float | None = None
    listed: int = 0

    def of(self, options: Sequence[int]) -> "Reply":
        """Return the reply about these tokens alone, which it has: a server may list thousands."""
        return self._replace(logprobs={token: self.logprobs[token] for token in options}, listed=len(options))

    def as_json(self) -> list[Any]:
        """Return the reply as a JSON value."""
        return [list(self.logprobs.items()), self.top, self.bound, self.listed]

    @classmethod
    def from_json(cls, value: list[Any]) -> "Reply":
        """Return the reply that `as_json` gave."""
        logprobs, top, bound, listed = value
        return cls(dict(logprobs), top, bound, listed)


@dataclass
class Asker:
    """Asks one model of a server, and checks what every answer has in common.

    names : token ids by their text, for servers that return texts; texts that several tokens share are not in it.
    """

    client: Client
    identity: Identity
    vocabulary: int
    names: Callable[[], dict[str, int]]
    _signatures: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def completion(self, ids: Sequence[int], **fields: Any) -> dict[str, Any]:
        """Return the only choice of a completion. Raises ServerError where the server read other tokens or is another model by now."""
        body = {"model": self.identity.asked, "prompt": list(ids), "max_tokens": 1, "temperature": 0.0, **fields}
        reply = self.client.ask("/v1/completions", body)
        choices = reply.get("choices") if isinstance(reply, dict) else None
        if not isinstance(choices, list) or len(choices) != 1 or not isinstance(choices[0], dict):
            raise ServerError(f"the server at {self.client.root} answers without exactly one choice; expected a completion as of OpenAI")
        self.check_read(len(ids), reply.get("usage"), "prompt_tokens")
        self.check_signature("/v1/completions", str(reply.get("model", "")), str(reply.get("system_fingerprint", "")))
        return choices[0]

    def check_read(self, sent: int, counts: Any, name: str) -> None:
        """Raise ServerError if the server says that it read another number of tokens than it was sent."""
        read = counts.get(name) if isinstance(counts, dict) else None
        if isinstance(read, int) and read != sent:
            raise ServerError(f"the server at {self.client.root} read {read} tokens where {sent} were sent; it changes prompts")

    def checked(self, reply: Reply) -> Reply:
        """Return a reply whose numbers can be log-probabilities of tokens of this vocabulary. Raises ServerError for any other."""
        if outside := [token for token in (*reply.logprobs, reply.top) if not UNKNOWN <= token < self.vocabulary]:
            raise ServerError(f"the server answers with token {outside[0]} and --tokenizer has {self.vocabulary}: it is another model's")
        mass = math.fsum(math.exp(value) for value in reply.logprobs.values())
        if mass > 1 + ROUNDING:
            raise ServerError(f"the tokens in the server's answer have {mass:.4g} of the probability together; expected log-probabilities")
        return reply

    def check_signature(self, path: str, *signature: str) -> None:
        """Raise ServerError if an answer is signed otherwise than the first one from this path: another model, or updated weights."""
        first = self._signatures.setdefault(path, signature)
        if first != signature:
            raise ServerError(
                f"another model answers at {self.client.root}: its answers are signed {signature!r} now and were signed "
                f"{first!r}; nothing of this run is stored"
            )


class ChosenTokens:
    """vLLM since 0.26: log-probabilities of any tokens. They are not the most likely ones, so they give no bound for a token left out."""

    name = "logprob_token_ids"

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    def ask(self, ids: Sequence[int], options: Sequence[int]) -> Reply:
        """Return the reply for a prompt."""
        choice = self._asker.completion(ids, logprobs=1, logprob_token_ids=list(options), return_tokens_as_token_ids=True)
        return self._asker.checked(_as_reply(choice, lambda: {})._replace(bound=None))


class SglangTokens:
    """SGLang: log-probabilities of any tokens, at its own address."""

    name = "token_ids_logprob"

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    def ask(self, ids: Sequence[int], options: Sequence[int]) -> Reply:
        """Return the reply for a prompt."""
        body = {
            "input_ids": list(ids),
            "sampling_params": {"max_new_tokens": 1, "temperature": 0.0},
            "return_logprob": True,
            "logprob_start_len": -1,
            "token_ids_logprob": list(options),
        }
        reply = self._asker.client.ask("/generate", body)
        meta = reply.get("meta_info") if isinstance(reply, dict) else None
        if not isinstance(meta, dict):
            raise NotOfferedError("no meta_info in the answer to /generate")
        self._asker.check_read(len(ids), meta, "prompt_tokens")
        self._asker.check_signature("/generate", str(meta.get("weight_version", "")))
        try:
            logprobs = {int(token): _number(value) for value, token, *_ in meta["output_token_ids_logprobs"][0]}
            top = int(meta["output_token_logprobs"][0][1])
        except (KeyError, IndexError, TypeError, ValueError):
            raise NotOfferedError("no log-probabilities of chosen tokens in the answer to /generate") from None
        return self._asker.checked(Reply(logprobs, top))


class AppendedOption:
    """Older vLLM: each option is appended to the prompt, and the server says what it thinks of the prompt's last token."""

    name = "prompt_logprobs"

    def __init__(self, asker: Asker) -> None:
        self._asker = asker

    def ask(self, ids: Sequence[int], options: Sequence[int]) -> Reply:
        """Return the reply for a prompt, from one request per option."""
        logprobs, top = {}, UNKNOWN
        for option in options:
            choice = self._asker.completion([*ids, option], prompt_logprobs=1)
            try:
                last = choice["prompt_logprobs"][-1]
                by_token = {int(token): _number(value["logprob"]) for token, value in last.items()}
                logprobs[option] = by_token[option]
            except (KeyError, IndexError, TypeError, ValueError, AttributeError):
                raise NotOfferedError("no log-probabilities of the prompt in the answer") from None
            top = max(by_token, key=lambda token: by_token[token])
        return self._asker.checked(Reply(logprobs, top))


class TopTokens:
    """llama.cpp and others: the N most likely tokens; an option outside them is asked again with a larger N, as far as the server goes."""

    name = "logprobs"

    def __init__(self, asker: Asker) -> None:
        self._asker, self._cap = asker, asker.vocabulary

    def ask(self, ids: Sequence[int], options: Sequence[int]) -> Reply:
        """Return the reply for a prompt; a server that goes no further leaves options out and gives a bound."""
        number, reply = min(FIRST_TOP, self._cap), Reply({}, UNKNOWN)
        while True:
            before, reply = reply, self._most_likely(ids, number)
            missing = [option for option in options if option not in reply.logprobs]
            if missing and reply.listed > len(reply.logprobs) and not set(missing) <= set(self._asker.names().values()):
                raise ServerError("the server writes tokens as texts, and the text of an option is that of several tokens")
            if not missing or reply.listed <= before.listed or number >= self._cap:
                return reply
            number = min(number * LARGER, self._cap)

    def _most_likely(self, ids: Sequence[int], number: int) -> Reply:
        for smaller in (number, *(cap for cap in CAPS if cap < number)):
            try:
                choice = self._asker.completion(ids, logprobs=smaller, return_tokens_as_token_ids=True)
            except NotOfferedError as error:
                refused = error
                continue
            self._cap = self._cap if smaller == number else smaller
            return self._asker.checked(_as_reply(choice, self._asker.names))
        raise refused


Form = ChosenTokens | SglangTokens | AppendedOption | TopTokens
FORMS: tuple[Callable[[Asker], Form], ...] = (ChosenTokens, SglangTokens, AppendedOption, TopTokens)


def find_form(asker: Asker, ids: Sequence[int], options: Sequence[int]) -> Form:
    """Return the first form, most exact first, whose answer to a prompt holds every option; else the one with the most likely tokens.

    Raises ServerError where the server gives no log-probabilities for a prompt of token ids.
    """
    refusals = []
    for make in FORMS:
        form = make(asker)
        try:
            reply = form.ask(ids, options)
        except NotOfferedError as error:
            refusals.append(str(error))
            continue
        if all(option in reply.logprobs for option in options) or isinstance(form, TopTokens):
            return form
    raise ServerError(
        f"the server at {asker.client.root} ({asker.identity.kind} {asker.identity.version}) gives no log-probabilities after a prompt of "
        f"token ids, which are needed; it says: {refusals[-1]}"
    )


def _as_reply(choice: dict[str, Any], names: Callable[[], dict[str, int]]) -> Reply:
    """Return the reply in either form of `logprobs` that servers have."""
    logprobs = choice.get("logprobs")
    try:
        if isinstance(logprobs, dict) and isinstance(logprobs.get("content"), list):
            pairs = [(each["id"] if "id" in each else each["token"], each["logprob"]) for each in logprobs["content"][0]["top_logprobs"]]
        elif isinstance(logprobs, dict) and isinstance(logprobs.get("top_logprobs"), list):
            pairs = list(logprobs["top_logprobs"][0].items())
        else:
            raise NotOfferedError("no log-probabilities in the answer")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise NotOfferedError("no log-probabilities of the most likely tokens in the answer") from None
    read = [(_token_id(token, names), _number(value)) for token, value in pairs]
    if not read:
        raise NotOfferedError("an empty list of the most likely tokens in the answer")
    known = [number for number, _ in read if number != UNKNOWN]
    if len(set(known)) < len(known):
        raise ServerError("the server's answer holds a token twice")
    top, _ = max(read, key=lambda pair: pair[1])
    return Reply({number: value for number, value in read if number != UNKNOWN}, top, min(value for _, value in read), len(read))


def _token_id(token: Any, names: Callable[[], dict[str, int]]) -> int:
    """Return the id of a token as servers write it; -1 for a text that does not belong to exactly one token."""
    if isinstance(token, int) and not isinstance(token, bool):
        return token
    text = str(token)
    if text.startswith(AS_ID) and text[len(AS_ID) :].isdecimal():
        return int(text[len(AS_ID) :])
    return names().get(text, UNKNOWN)


def _number(value: Any) -> float:
    """Return a log-probability. Raises ServerError for what cannot be one, and for vLLM's stand-in for minus infinity."""
    usable = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value) and STAND_IN < value <= ROUNDING
    if not usable:
        raise ServerError(f"the server answers {str(value)[:40]!r} where a log-probability was expected; nothing is put in its place")
    return float(value)
