"""Recipes: which layers get which level, written as a TOML file.

    name = "nvfp4-fp8"            # the level that the runs state
    method = "rtn"                # what rounds the weights: rtn or gptq

    [[layers]]                    # the first entry that matches a layer counts; layers without one keep their precision
    match = "experts"             # a role (attention, feed-forward, experts) or a name within a decoder layer, such as mlp.*.down_proj
    level = "nvfp4"

    [[layers]]
    match = "attention"
    level = "w8a8-fp8"

In: a file.  Out: its content, which runs record among their settings, and the level of every kind of layer.
"""

from collections.abc import Collection, Iterable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from producer.methods.shared.architectures import linear_shapes
from producer.methods.shared.number_formats import canonical_level, format_of
from producer.methods.shared.quantization import accepts_formats
from schemas.errors import UsageError
from schemas.levels import Level, parse_level
from schemas.toml_file import as_model, read_toml

ATTENTION = ("self_attn", "attn", "attention", "self_attention", "linear_attn", "mixer")  # what decoder layers call it
# Kinds whose tensors share one scale in NVFP4, since servers load them as one matrix.
TOGETHER = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"), ("q_a_proj", "kv_a_proj_with_mqa"), ("w1", "w3"))
EXPERTS = ("experts", "shared_expert", "shared_experts")


def _quantizing_level(text: str) -> str:
    try:
        level = canonical_level(parse_level(text))
    except UsageError as error:
        raise ValueError(str(error)) from None
    if reason := accepts_formats(level):
        raise ValueError(f"no level of rtn and gptq, {reason}")
    return level.text


def _recipe_name(text: str) -> str:
    try:
        level = parse_level(text)
    except UsageError as error:
        raise ValueError(str(error)) from None
    if reason := no_name(level):
        raise ValueError(reason)
    return level.text


def no_name(level: Level) -> str:
    """Return why a level cannot be the name of a recipe, or ""."""
    if level.kind != "name" or format_of(level):
        return "a recipe has a name of its own, such as nvfp4-fp8, and none of a level that other methods have"
    return ""


class RecipeLayers(BaseModel):
    """Some layers and their level."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    match: Annotated[str, Field(min_length=1)]
    level: Annotated[str, AfterValidator(_quantizing_level)]


class RecipeFile(BaseModel):
    """A recipe as it is written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Annotated[str, AfterValidator(_recipe_name)]
    method: Literal["rtn", "gptq"] = "rtn"
    layers: Annotated[tuple[RecipeLayers, ...], Field(min_length=1)]


DEFAULT = RecipeFile(
    name="nvfp4-fp8",
    layers=(RecipeLayers(match="attention", level="w8a8-fp8"), RecipeLayers(match="feed-forward", level="nvfp4")),
).model_dump(mode="json")


def read_recipe(path: str) -> dict[str, Any]:
    """Return the content of a recipe file. Raises UsageError that names every problem."""
    return as_model(RecipeFile, read_toml(Path(path), "recipe"), f"recipe {path}").model_dump(mode="json")


def levels_by_kind(recipe: Mapping[str, Any], kinds: Iterable[str]) -> dict[str, Level]:
    """Return the level of every kind of layer that the recipe quantizes; a kind is a name such as mlp.experts.*.down_proj."""
    chosen: dict[str, Level] = {}
    for kind in kinds:
        for entry in recipe["layers"]:
            if _matches(entry["match"], kind):
                chosen[kind] = parse_level(entry["level"])
                break
    return chosen


def recipe_misfit(config: Any, level: Level, recipe: Mapping[str, Any]) -> str:
    """Return why a model cannot be quantized by a recipe, or ""; needs no weights."""
    if level.text != recipe["name"]:
        return f"the recipe is called {recipe['name']!r}; name it with --recipe, or give --level {recipe['name']}"
    shapes = linear_shapes(config)
    for entry in recipe["layers"]:
        if not any(_matches(entry["match"], kind) for kind in shapes):
            return f"{entry['match']!r} of the recipe matches none of its layers: {', '.join(shapes)}"
    for kind, of_kind in levels_by_kind(recipe, shapes).items():
        number_format = format_of(of_kind)
        group, columns = number_format.group if number_format else of_kind.group_size, shapes[kind].columns
        if group and columns % group:
            return f"groups of {group} do not divide the {columns} columns of {kind} at level {of_kind.text!r} of the recipe"
    return _apart(shapes, levels_by_kind(recipe, shapes))


def _apart(kinds: Collection[str], levels: Mapping[str, Level]) -> str:
    """Return why kinds of layers that share a scale of NVFP4 cannot have levels that differ, or "" where they do not."""
    for kind in kinds:
        owner, _, name = kind.rpartition(".")
        partners = next((each for each in TOGETHER if name in each), ())
        if partners and (level := levels.get(kind)) and level.text.startswith("nvfp4"):
            for partner in (f"{owner}.{other}" for other in partners):
                if partner in kinds and levels.get(partner) != level:
                    return f"{kind} at level {level.text!r} shares a scale with {partner}, so the recipe must give both the same level"
    return ""


def _matches(pattern: str, kind: str) -> bool:
    parts = kind.split(".")
    in_attention = any(part in ATTENTION for part in parts)
    roles = {"attention": in_attention, "feed-forward": not in_attention, "experts": any(part in EXPERTS for part in parts)}
    return roles[pattern] if pattern in roles else fnmatchcase(kind, pattern)
