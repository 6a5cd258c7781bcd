"""The compression methods by name. Each has its own file and one line here."""

from typing import Any

from producer.methods import (
    autoround,
    awq,
    bitsandbytes,
    checkpoint,
    dense,
    gptq,
    hqq,
    kv,
    llm_pruner,
    magnitude,
    quarot,
    recipe,
    rtn,
    slicegpt,
    smoothquant,
    sparsegpt,
    spinquant,
    wanda,
)
from producer.methods.shared.contract import Applied, Method
from schemas.plug_ins import add_plug_ins

METHODS: dict[str, Method] = {
    "dense": dense.METHOD,
    "rtn": rtn.METHOD,
    "gptq": gptq.METHOD,
    "awq": awq.METHOD,
    "autoround": autoround.METHOD,
    "hqq": hqq.METHOD,
    "bitsandbytes": bitsandbytes.METHOD,
    "smoothquant": smoothquant.METHOD,
    "quarot": quarot.METHOD,
    "spinquant": spinquant.METHOD,
    "magnitude": magnitude.METHOD,
    "wanda": wanda.METHOD,
    "sparsegpt": sparsegpt.METHOD,
    "llm-pruner": llm_pruner.METHOD,
    "slicegpt": slicegpt.METHOD,
    "recipe": recipe.METHOD,
    "kv": kv.METHOD,
    "checkpoint": checkpoint.METHOD,
}


def _problem(name: str, loaded: Any) -> str:
    if not isinstance(loaded, Method):
        return f"it is a {type(loaded).__name__}, not a Method of producer.methods"
    return "" if loaded.name == name else f"it is a method that is called {loaded.name!r}"


add_plug_ins("hedgemark.methods", METHODS, _problem)

__all__ = ["METHODS", "Applied", "Method"]
