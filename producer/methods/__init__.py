"""The compression methods by name: one file, one line each."""

from producer.methods import dense, magnitude, rtn, wanda
from producer.methods.base import Applied, Method

METHODS: dict[str, Method] = {
    "dense": dense.METHOD,
    "rtn": rtn.METHOD,
    "magnitude": magnitude.METHOD,
    "wanda": wanda.METHOD,
}

__all__ = ["METHODS", "Applied", "Method"]
