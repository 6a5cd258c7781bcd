"""Choose the levels at which each method is run.

In: the names of methods, levels and formats of cached keys and values, as they were given; a model's config.  Out: `Level`s by method.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from producer.methods import METHODS
from producer.request.request import check_names
from schemas.errors import UsageError
from schemas.levels import CACHE_BITS, Level, parse_levels
from schemas.run import DENSE

KV = "kv"  # the method of a dense model whose cached keys and values are rounded


def choose_levels(methods: Sequence[str], levels: Sequence[str], caches: Sequence[str] = ()) -> dict[str, list[Level]]:
    """Return for each method the given levels that it accepts; none means its default level, which depends on the model.

    caches : formats of cached keys and values, which `levels_for` adds to every level. For the dense model they are levels of `kv`.
    Raises UsageError for an unknown method, a level that no method accepts, or a method other than dense that accepts none of the levels.
    """
    check_names("method", methods, [*METHODS])
    check_names("--kv format", caches, [*CACHE_BITS])
    if caches and {DENSE, KV} & set(methods):
        others = [name for name in methods if name not in (DENSE, KV)]
        if levels and not others:
            raise UsageError(f"level {levels[0]!r} is no format of cached keys and values; leave it out, --kv names them")
        return {KV: parse_levels(caches), **(choose_levels(others, levels) if others else {})}
    parsed = parse_levels(levels)
    if not parsed:
        return {name: [] for name in methods}
    chosen = {name: [level for level in parsed if not METHODS[name].refusal(level)] for name in methods}
    with_levels = [name for name in methods if name != "dense"] or list(methods)
    for level in parsed:
        if not any(level in chosen[name] for name in methods):
            METHODS[with_levels[0]].check_level(level)
    for name in with_levels:
        if not chosen[name]:
            METHODS[name].check_level(parsed[0])
    return chosen


def levels_for(config: Any, chosen: Mapping[str, list[Level]], caches: Sequence[str]) -> dict[str, list[Level]]:
    """Return each method's levels for a model: the chosen ones, each once under our name for it, or the method's default level.

    caches : formats of cached keys and values; a method other than `kv` has each level once with each of them.
    """

    def stated(name: str) -> Iterator[Level]:
        for level in chosen[name] or [METHODS[name].default_for(config)]:
            for each in [level.with_cache(cache) for cache in caches] if caches and name != KV else [level]:
                yield METHODS[name].level_for(config, each)

    return {name: list(dict.fromkeys(stated(name))) for name in chosen}
