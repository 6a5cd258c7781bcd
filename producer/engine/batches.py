"""Batches: items of like length together, so that hardly any token is padding.

In: lengths, a token budget.  Out: batches of item numbers, longest first, so that memory runs out at once or not at all.
"""

from collections.abc import Iterator, Sequence

MAX_WASTE = 0.05  # share of a batch that may be padding


def plan_batches(lengths: Sequence[int], tokens: int) -> list[list[int]]:
    """Return item numbers by batch.

    lengths : own tokens of each item.
    tokens  : most padded tokens in a batch; an item longer than that is a batch of its own.
    """
    order = sorted(range(len(lengths)), key=lambda item: -lengths[item])
    return list(_fill(order, lengths, tokens))


def padding_share(batches: Sequence[Sequence[int]], lengths: Sequence[int]) -> float:
    """Return the share of padded tokens that are padding."""
    padded = sum(len(batch) * max(lengths[item] for item in batch) for batch in batches)
    return 1 - sum(lengths[item] for batch in batches for item in batch) / padded if padded else 0.0


def _fill(order: list[int], lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    batch: list[int] = []
    used = 0
    for item in order:
        width = lengths[batch[0]] if batch else lengths[item]
        padded = (len(batch) + 1) * width
        too_wide = padded > tokens
        wasteful = padded - used - lengths[item] > MAX_WASTE * padded
        if batch and (too_wide or wasteful):
            yield batch
            batch, used = [], 0
        batch.append(item)
        used += lengths[item]
    if batch:
        yield batch
