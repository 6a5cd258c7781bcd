"""KV: only the cached keys and values are rounded; the weights stay as they are. Any other method takes such a cache with `--kv`."""

from producer.methods.shared.architectures import not_dense
from producer.methods.shared.contract import NOTHING, Method
from schemas.levels import CACHE_BITS, Level, parse_level


def accepts_caches(level: Level) -> str:
    """Return why this method cannot take a level, or ""."""
    return "" if level.text.lower() in CACHE_BITS else "it is no format of cached keys and values"


METHOD = Method(
    name="kv",
    kind="key/value cache, simulated",
    paper="Hooper et al. 2024, arXiv:2401.18079",
    default_level="fp8",
    levels=", ".join(CACHE_BITS),
    needs=NOTHING,
    models="what the backend runs, but those that cache a compressed vector",
    compress=lambda model, job: model,
    settings_for=lambda level: {},
    accepts=accepts_caches,
    fits=lambda config, level: not_dense(config),
    verify=lambda model, job: {},
    level_of=lambda config, level: parse_level(level.text.lower()),
    changes=False,
    takes_cache=False,
    cache_of=lambda level: level.text.lower(),
)
