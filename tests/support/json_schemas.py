"""The JSON Schemas of the TOML files that users write, from the models that read them; run it to write them to schemas/json again."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from analyzer.gate.policy import PolicyFile
from analyzer.studies.cost import PriceFile
from analyzer.studies.weighted_conformal import MixFile
from producer.methods.shared.recipe_file import RecipeFile
from producer.prompts.templates import Wording
from producer.sweep.sweep_file import sweep_schema

FOLDER = Path(__file__).resolve().parents[2] / "schemas" / "json"
DIALECT = "https://json-schema.org/draft/2020-12/schema"
FROM_MODELS: dict[str, Callable[[], dict[str, Any]]] = {
    "policy": PolicyFile.model_json_schema,
    "prices": PriceFile.model_json_schema,
    "mix": MixFile.model_json_schema,
    "prompts": Wording.model_json_schema,
    "sweep": sweep_schema,
    "recipe": RecipeFile.model_json_schema,
}


def text_of(name: str) -> str:
    """Return the JSON Schema of a kind of file as it is shipped."""
    return json.dumps({"$schema": DIALECT, **FROM_MODELS[name]()}, indent=2) + "\n"


if __name__ == "__main__":
    for name in FROM_MODELS:
        (FOLDER / f"{name}.json").write_text(text_of(name), encoding="utf-8")
