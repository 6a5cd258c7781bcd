"""What a model makes of a text beside the dense model: at every token, the log-probability, KL over the full vocabulary, and the top token.

In: two models one after the other, the same windows of tokens.  Out: `TokenArrays`.

The dense model's hidden states before the head are kept (tokens times width, which is small beside tokens times vocabulary), and its head.
Then both heads are multiplied part by part, so that no more than `ROWS` columns of logits exist at a time. The sums over the vocabulary
run in float64: KL is the small difference of large numbers.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from producer.engine.skeleton import Skeleton, take_apart
from schemas.errors import HedgemarkError, UsageError
from schemas.run import TokenArrays

ROWS = 16384  # rows of the head (tokens of the vocabulary) that are multiplied at a time
TOKENS_AT_ONCE = 512  # of which logits exist at a time
BATCH_TOKENS = {"cpu": 2048, "other": 16384}  # most tokens in a forward pass
CHECKED = 8  # positions at which the parts of a model are compared with its own logits
ROUNDING = {"float32": 1e-4, "bfloat16": 2**-6, "float16": 2**-9}  # largest accepted relative difference of a logit there


class Window(NamedTuple):
    """Tokens that a model reads at once, and how many of the last ones it has to foretell."""

    tokens: tuple[int, ...]
    n_targets: int


@dataclass(frozen=True)
class Windows:
    """The windows of all documents in order, and each document's number of tokens to foretell.

    digest : SHA-256 over the tokens of every window.
    length : most tokens in a window.
    """

    windows: tuple[Window, ...]
    counts: tuple[int, ...]
    digest: str
    length: int

    @property
    def n_tokens(self) -> int:
        """Number of tokens that a model reads."""
        return sum(len(window.tokens) for window in self.windows)


class _Head(NamedTuple):
    """What makes logits of the hidden states that come out of the final norm."""

    weight: Any
    bias: Any
    finish: Callable[[Any], Any]

    def logits(self, hidden: Any, rows: slice) -> Any:
        import torch

        bias = None if self.bias is None else self.bias[rows].to(hidden.device).float()
        return self.finish(torch.nn.functional.linear(hidden, self.weight[rows].to(hidden.device).float(), bias)).double()


class ReadText(NamedTuple):
    """A model's hidden states at every place before a token to foretell, (token, width) float32 on the host, and its head."""

    hidden: Any
    head: _Head


def read_text(model: Any, windows: Windows, device: str, dtype: str, done: Callable[[int], None] = lambda _: None) -> ReadText:
    """Return what a model makes of a text, before the head. A later change of the model does not change what is returned.

    Raises UsageError for a model that is not made of layers, norm and head in the known order.
    """
    import torch

    try:
        skeleton = take_apart(model)
    except HedgemarkError as error:
        raise UsageError(f"--text cannot read this model: {error}") from error
    with torch.inference_mode():
        _check_parts(model, skeleton, windows.windows[0], device, dtype)
        rows: dict[int, Any] = {}
        for batch in _equal_lengths(windows.windows, BATCH_TOKENS.get(device.partition(":")[0], BATCH_TOKENS["other"])):
            ids = torch.tensor([windows.windows[number].tokens for number in batch], device=device)
            states = model.model(input_ids=ids, use_cache=False).last_hidden_state
            for row, number in enumerate(batch):
                rows[number] = states[row, -windows.windows[number].n_targets - 1 : -1].float().cpu()
            done(len(batch))
        weight, bias = skeleton.head.weight, skeleton.head.bias
        head = _Head(weight.detach().clone(), None if bias is None else bias.detach().clone(), skeleton.finish)
        return ReadText(torch.cat([rows[number] for number in range(len(windows.windows))]), head)


def compare_texts(dense: ReadText, other: ReadText, windows: Windows, device: str) -> TokenArrays:
    """Return what the other model made of the text, beside the dense model. Raises HedgemarkError where a logit is not finite."""
    import torch

    targets = torch.tensor([token for window in windows.windows for token in window.tokens[-window.n_targets :]])
    parts = []
    with torch.inference_mode():
        for start in range(0, len(targets), TOKENS_AT_ONCE):
            piece = slice(start, start + TOKENS_AT_ONCE)
            hidden = dense.hidden[piece].to(device), other.hidden[piece].to(device)
            parts.append(_compared(dense.head, other.head, *hidden, targets[piece].to(device)))
    logprob, kl, same_top = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    if not (np.isfinite(logprob).all() and np.isfinite(kl).all()):
        raise HedgemarkError(f"{int((~np.isfinite(logprob + kl)).sum())} of {len(kl)} tokens of the text have logits that are not finite")
    offsets = np.concatenate([[0], np.cumsum(windows.counts)]).astype(np.int64)
    return TokenArrays(np.minimum(logprob, 0).astype(np.float32), np.maximum(kl, 0).astype(np.float32), same_top, offsets)


def _compared(dense: _Head, other: _Head, before: Any, after: Any, targets: Any) -> tuple[Any, Any, Any]:
    """Return log-probability of the targets, KL and whether the top tokens agree, in one pass over the vocabulary.

    With the running maximum m of the dense logits z, S sums exp(z - m) and T sums exp(z - m) (z - z'), so that
    KL = T / S - log sum exp(z) + log sum exp(z').
    """
    import torch

    n_tokens = len(targets)
    lowest = torch.full((n_tokens,), -torch.inf, dtype=torch.float64, device=before.device)
    zero = torch.zeros_like(lowest)
    high, high_other, weighted, total, total_other, target_logits = lowest, lowest, zero, zero, zero, zero
    top, top_other = torch.zeros_like(targets), torch.zeros_like(targets)
    for start in range(0, dense.weight.shape[0], ROWS):
        z, z_other = dense.logits(before, slice(start, start + ROWS)), other.logits(after, slice(start, start + ROWS))
        best, where = z.max(1)
        best_other, where_other = z_other.max(1)
        top, top_other = torch.where(best > high, where + start, top), torch.where(best_other > high_other, where_other + start, top_other)
        new, new_other = torch.maximum(high, best), torch.maximum(high_other, best_other)
        share, shrink, shrink_other = (z - new[:, None]).exp(), (high - new).exp(), (high_other - new_other).exp()
        total, weighted = total * shrink + share.sum(1), weighted * shrink + (share * (z - z_other)).sum(1)
        total_other = total_other * shrink_other + (z_other - new_other[:, None]).exp().sum(1)
        high, high_other = new, new_other
        inside = (targets >= start) & (targets < start + z.shape[1])
        target_logits = torch.where(inside, z_other.gather(1, (targets - start).clamp(0, z.shape[1] - 1)[:, None])[:, 0], target_logits)
    log_total, log_other = high + total.log(), high_other + total_other.log()
    kl = weighted / total - log_total + log_other
    return tuple(array.cpu().numpy() for array in (target_logits - log_other, kl, top == top_other))  # type: ignore[return-value]


def _check_parts(model: Any, skeleton: Skeleton, window: Window, device: str, dtype: str) -> None:
    """Raise UsageError where hidden states and head do not give the logits of the model's own forward pass."""
    import torch

    ids = torch.tensor([window.tokens[: CHECKED + 1]], device=device)
    expected = model(input_ids=ids, use_cache=False).logits[0].double()
    states = model.model(input_ids=ids, use_cache=False).last_hidden_state[0].float()
    head = _Head(skeleton.head.weight, skeleton.head.bias, skeleton.finish)
    difference = float((head.logits(states, slice(0, None)) - expected).abs().max())
    if not difference <= ROUNDING[dtype] * (1 + float(expected.abs().max())):
        raise UsageError(f"--text cannot read this model: its norm and head give other logits than the model itself, by {difference:.3g}")


def _equal_lengths(windows: Sequence[Window], most: int) -> Iterator[list[int]]:
    """Yield the numbers of equally long windows together, so that nothing is padded."""
    by_length: dict[int, list[int]] = {}
    for number, window in enumerate(windows):
        by_length.setdefault(len(window.tokens), []).append(number)
    for length, numbers in sorted(by_length.items(), reverse=True):
        each = max(1, most // length)
        yield from (numbers[start : start + each] for start in range(0, len(numbers), each))


def cut_windows(documents: Sequence[Sequence[int]], first: Sequence[int], length: int) -> tuple[tuple[Window, ...], tuple[int, ...]]:
    """Return documents of tokens as windows of at most `length` tokens, and how many tokens each document has to foretell.

    first : the tokens with which the tokenizer begins a text, put before every window; without any, a window's first token is not foretold.
    """
    windows, counts = [], []
    for document in documents:
        pieces = [document[start : start + length - len(first)] for start in range(0, len(document), length - len(first))]
        readable = [Window((*first, *piece), len(piece) - (not first)) for piece in pieces]
        readable = [window for window in readable if window.n_targets > 0]
        windows += readable
        counts.append(sum(window.n_targets for window in readable))
    return tuple(windows), tuple(counts)
