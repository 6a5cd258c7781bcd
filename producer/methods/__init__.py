"""The compression methods by name: one file, one line each."""

from producer.methods import awq, checkpoint, dense, gptq, magnitude, rtn, smoothquant, sparsegpt, wanda
from producer.methods.base import Applied, Method

METHODS: dict[str, Method] = {
    "dense": dense.METHOD,
    "rtn": rtn.METHOD,
    "gptq": gptq.METHOD,
    "awq": awq.METHOD,
    "smoothquant": smoothquant.METHOD,
    "magnitude": magnitude.METHOD,
    "wanda": wanda.METHOD,
    "sparsegpt": sparsegpt.METHOD,
    "checkpoint": checkpoint.METHOD,
}

__all__ = ["METHODS", "Applied", "Method"]
