"""Sweep files: many requests in one TOML file.

    limit = 1000                      # top level: what every block shares
    task = ["mmlu", "hellaswag"]

    [[sweep]]                         # each block: every combination of its lists
    model = ["llama3.1-8b", "qwen3-8b"]
    method = ["dense", "wanda"]
    level = ["0.3", "0.5"]

    [[sweep]]
    part = "large"                    # a name for --only
    model = "llama3.1-70b"
    device-memory = "20G"

Keys are option names of `produce`, and values are checked as on the command line. In: a path, or the name of a plan that comes along.
Out: one `Request` per block.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import click
from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, WithJsonSchema, create_model

from producer.request.options import RUN_OPTIONS, SETTINGS_OPTIONS
from producer.request.request import Request, request_of
from producer.sweep.named_plans import PART, Head, plan_path, take_head, take_only
from schemas.errors import UsageError
from schemas.toml_file import as_model, read_toml
from store.command import add_options

BLOCKS = "sweep"
JSON_TYPES: Mapping[type, str] = {bool: "boolean", int: "integer", float: "number", str: "string"}


def read_sweep(path: Path, options: Mapping[str, Any]) -> list[Request]:
    """Return the requests of a sweep file or named plan; options of the command line override those of the file.

    Raises UsageError for invalid TOML, and, all together, for unknown keys, invalid values and blocks without a model.
    """
    _, table, blocks = _read(path)
    options = dict(options)
    only = options.pop("only", ())
    values, problems = [], []
    for number, block in enumerate(blocks, 1):
        try:
            values.append(_values(_dashed(table) | _dashed(block), options))
            _request(values[-1])  # so that a fault is found in whatever block it is, also in one that --only leaves out
        except UsageError as error:
            problems.append(f"block {number}: {error}")
    if problems:
        raise UsageError(f"sweep file {path}: {'; '.join(problems)}")
    return [_request(block) for block in take_only(values, only)]


def sweep_schema() -> dict[str, Any]:
    """Return the JSON Schema of a sweep file: the options of `produce` for all blocks, and blocks of them."""
    block = Block.model_json_schema()
    options = {
        name: {key: value for key, value in each.items() if key not in ("default", "title")} for name, each in block["properties"].items()
    }
    text: dict[str, Any] = {"type": "string"}
    part = {PART: text | {"description": "Name of the block, for --only."}}
    blocks = {"type": "array", "items": {"type": "object", "additionalProperties": False, "properties": {**part, **options}}}
    choice = {"type": "object", "additionalProperties": False, "properties": {"question": text, "choice": text}}
    head: dict[str, Any] = {"about": text | {"description": "What the sweep is, in a sentence."}}
    head |= {"open": {"type": "array", "items": choice, "description": "What a study's paper leaves open, and what is done here."}}
    return {"type": "object", "additionalProperties": False, "properties": {**head, **options, BLOCKS: blocks}}


def read_head(path: Path) -> Head:
    """Return what a sweep file or named plan says about itself."""
    return _read(path)[0]


def _read(path: Path) -> tuple[Head, dict[str, Any], list[dict[str, Any]]]:
    table = read_toml(plan_path(path), "sweep file")
    head, blocks = take_head(table), table.pop(BLOCKS, [{}])
    if not isinstance(blocks, list) or not all(isinstance(block, dict) for block in blocks):
        raise UsageError(f"sweep file {path}: {BLOCKS!r} must be blocks, each headed [[{BLOCKS}]]")
    return head, table, blocks


def _request(values: Mapping[str, Any]) -> Request:
    return request_of({key: value for key, value in values.items() if key != PART})


def _values(block: dict[str, Any], options: Mapping[str, Any]) -> Mapping[str, Any]:
    part = block.pop(PART, "")
    if not isinstance(part, str):
        raise UsageError(f"{PART!r} must be a string, not {part!r:.80}")
    values = as_model(Block, block).model_dump(exclude_unset=True) | dict(options)
    if values.get("backend") == "server":
        raise UsageError("--backend server is not for sweeps: a server runs one model")
    if not values.get("models"):
        raise UsageError("no model; name one with model = '...'")
    return values | ({PART: part} if part else {})


def _dashed(table: Mapping[str, Any]) -> dict[str, Any]:
    return {key.replace("_", "-"): value for key, value in table.items()}


def _field(option: click.Option) -> Any:
    """Return the pydantic type of an option's value in a sweep file, and its key there."""
    kind, described = _kind(option)

    def as_list(value: Any) -> Any:
        values = value if option.multiple and isinstance(value, list) else [value]
        if not all(type(each) is kind for each in values):
            raise ValueError(f"must be {described}, not {value!r:.80}")
        if not values:
            raise ValueError("is an empty list; leave it out for what is taken by default")
        return values

    def converted(written: list[Any]) -> Any:
        try:
            values = tuple(option.type.convert(each, option, None) for each in written)
        except click.BadParameter as error:
            raise ValueError(error.message) from error
        return values if option.multiple else values[0]

    schema: dict[str, Any] = {"type": JSON_TYPES[kind]}
    if option.multiple:
        schema = {"anyOf": [schema, {"type": "array", "items": schema, "minItems": 1}]}
    key = Field(None, alias=option.opts[0].removeprefix("--"), description=option.help)
    return Annotated[Any, AfterValidator(converted), BeforeValidator(as_list), WithJsonSchema(schema)], key


def _kind(option: click.Option) -> tuple[type, str]:
    if option.is_flag:
        return bool, "true or false"
    if isinstance(option.type, click.IntRange):
        return int, "a whole number"
    return str, "a string or a list of strings" if option.multiple else "a string"


@click.command()
@add_options(RUN_OPTIONS + SETTINGS_OPTIONS)
def _options(**_: object) -> None:
    """Never called: it only lets click build the options."""


Block: type[BaseModel] = create_model(
    "Block",
    __config__=ConfigDict(extra="forbid", frozen=True),
    **{option.name: _field(option) for option in _options.params if isinstance(option, click.Option) and option.name},
)
