"""Option tokens: the one token after `Answer:` that says A, B and so on.

In: a tokenizer.  Out: token ids and texts, one per option letter. Some vocabularies hold "A" and " A" as two tokens; the one that
really follows `Answer:` is found by encoding `Answer: A` and taking the last token.
"""

from string import ascii_uppercase
from typing import Any, NamedTuple

from schemas.errors import UsageError

CUE = "Answer:"


class OptionTokens(NamedTuple):
    """Token ids and their texts in option order."""

    ids: tuple[int, ...]
    texts: tuple[str, ...]


def option_tokens(tokenizer: Any, n_options: int) -> OptionTokens:
    """Return the tokens of the first `n_options` letters.

    Raises UsageError where the letter is not exactly one token after the cue, is unknown, or two options share a token.
    """
    cue = tokenizer(CUE, add_special_tokens=False)["input_ids"]
    if tokenizer(CUE)["input_ids"][-1:] != cue[-1:]:
        last = tokenizer.convert_ids_to_tokens(tokenizer(CUE)["input_ids"][-1])
        raise UsageError(f"the tokenizer puts {last!r} after a text; nothing may follow '{CUE}'")
    ids = []
    for letter in ascii_uppercase[:n_options]:
        encoded = tokenizer(f"{CUE} {letter}", add_special_tokens=False)["input_ids"]
        if encoded[: len(cue)] != cue or len(encoded) != len(cue) + 1:
            seen = tokenizer.convert_ids_to_tokens(encoded)
            raise UsageError(f"the tokenizer encodes '{CUE} {letter}' as {seen}: {letter} is not one token of its own and cannot be scored")
        ids.append(int(encoded[-1]))
    texts = tuple(str(text) for text in tokenizer.convert_ids_to_tokens(ids))
    _check_distinct(ids, texts, getattr(tokenizer, "unk_token_id", None))
    return OptionTokens(tuple(ids), texts)


def _check_distinct(ids: list[int], texts: tuple[str, ...], unknown: int | None) -> None:
    for position, token in enumerate(ids):
        if token == unknown:
            raise UsageError(f"the tokenizer does not know option {ascii_uppercase[position]} (it is the unknown token)")
        if (first := ids.index(token)) != position:
            letters = f"{ascii_uppercase[first]} and {ascii_uppercase[position]}"
            raise UsageError(f"options {letters} share the token {texts[position]!r}, so they cannot be told apart")
