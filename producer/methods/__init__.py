"""The compression methods by name. Each has its own file and one line here."""

from producer.methods import (
    awq,
    bitsandbytes,
    checkpoint,
    dense,
    gptq,
    kv,
    llm_pruner,
    magnitude,
    quarot,
    rtn,
    slicegpt,
    smoothquant,
    sparsegpt,
    spinquant,
    wanda,
)
from producer.methods.shared.contract import Applied, Method

METHODS: dict[str, Method] = {
    "dense": dense.METHOD,
    "rtn": rtn.METHOD,
    "gptq": gptq.METHOD,
    "awq": awq.METHOD,
    "bitsandbytes": bitsandbytes.METHOD,
    "smoothquant": smoothquant.METHOD,
    "quarot": quarot.METHOD,
    "spinquant": spinquant.METHOD,
    "magnitude": magnitude.METHOD,
    "wanda": wanda.METHOD,
    "sparsegpt": sparsegpt.METHOD,
    "llm-pruner": llm_pruner.METHOD,
    "slicegpt": slicegpt.METHOD,
    "kv": kv.METHOD,
    "checkpoint": checkpoint.METHOD,
}

__all__ = ["METHODS", "Applied", "Method"]
