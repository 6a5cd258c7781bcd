"""The values that the API's functions take, by the name of the argument: how each is read, and what a message says is expected."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import xarray as xr

from analyzer.predictor import Predictor
from analyzer.predictor.document import PRICES
from analyzer.protocols.ask import ASKED
from analyzer.runs.memory import with_indexes
from analyzer.studies.cost import Prices, read_prices
from analyzer.studies.weighted_conformal import MixFile, read_mix
from schemas.arguments import (
    A_FILE,
    A_FLAG,
    A_NUMBER,
    A_SNAPSHOT,
    A_TEXT,
    AN_ADDRESS,
    Kind,
    Reader,
    address,
    exact,
    file_path,
    number,
    refuse,
    text,
    whole_number,
)  # fmt: skip
from schemas.errors import UsageError
from schemas.fields import FIELDS
from schemas.toml_file import as_model


def prices_of(value: Any) -> Prices:
    """Return prices, or those of a mapping or a file. Raises UsageError if nothing has a price."""
    if not isinstance(value, Prices) and not _is_mapping(value):
        return read_prices(file_path(value))
    prices = value if isinstance(value, Prices) else as_model(Prices, value, "prices")
    if not any(getattr(prices, name) for name in PRICES):
        raise UsageError(f"prices: nothing has a price; give at least one of {', '.join(PRICES)}")
    return prices


def mix_of(value: Any) -> Mapping[str, float]:
    """Return the share of each subject in a mapping or a file."""
    return as_model(MixFile, {"subjects": dict(value)}, "subject_mix").subjects if _is_mapping(value) else read_mix(file_path(value))


def predictor_of(value: Any) -> Predictor:
    """Return a predictor, or that of a file."""
    return value if isinstance(value, Predictor) else Predictor.load(file_path(value))


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping) and not isinstance(value, xr.Dataset)


def _several(read: Reader) -> Reader:
    """A reader of one value or several of them, in a list, an array, a column of a table, or anything else that can be walked through."""

    def read_several(values: Any) -> list[Any]:
        if isinstance(values, bytes | Mapping):
            raise TypeError
        if hasattr(values, "__array__"):
            values = np.asarray(values)
            values = values if values.ndim == 1 else [values[()]] if not values.ndim else refuse()
        listed = list(values) if isinstance(values, Iterable) and not isinstance(values, str) else [values]
        return [read(value) for value in listed] or refuse()

    return read_several


def _by_name(read: Reader) -> Reader:
    """A reader of a mapping from names to values."""

    def read_mapping(values: Any) -> dict[str, Any]:
        if not _is_mapping(values):
            raise TypeError
        return {text(name): read(value) for name, value in values.items()}

    return read_mapping


def _either(*readers: Reader) -> Reader:
    """A reader of values of several kinds, of which the first that fits is taken."""

    def read_either(value: Any) -> Any:
        for read in readers[:-1]:
            try:
                return read(value)
            except (TypeError, ValueError):
                continue
        return readers[-1](value)

    return read_either


def _scorer(value: Any) -> Any:
    return value if callable(value) and not isinstance(value, type) else text(value)


def _level(value: Any) -> str:
    return text(exact(value))


def _data_set(value: Any) -> xr.Dataset:
    if not isinstance(value, xr.Dataset):
        raise TypeError
    return with_indexes(value)


def _source(value: Any) -> Any:
    """The address of a store, one data set, or several."""
    if isinstance(value, str | os.PathLike):
        return address(value)
    return _data_set(value) if isinstance(value, xr.Dataset) else _several(_data_set)(value)


def _clusters(value: Any) -> Any:
    return dict(value) if _is_mapping(value) else text(value)


LOGITS = "with logits (item, option) and answer (item,)"
EXACT = "a number such as 0.1, or a text such as '1/10'"
A_SCORER = "the name of a scorer, such as 'lac', or a function of probs (item, option) that returns scores"
ARGUMENTS: dict[str, Kind] = {
    "source": Kind(_source, f"{AN_ADDRESS.expected}, or one or several xarray data sets {LOGITS}"),
    "store": AN_ADDRESS,
    "data": Kind(_data_set, f"an xarray data set {LOGITS}"),
    "at": A_SNAPSHOT,
    **dict.fromkeys(FIELDS, Kind(_several(text), "a name or several")),
    "level": Kind(_several(_level), "a level such as '0.5', '2:4' or 'w4a16-g128', or several"),
    "against": Kind(text, "the name of a model"),
    **dict.fromkeys(("average", "common_items", "allow_unreliable", "stratify", "sizes", "quantiles"), A_FLAG),
    **dict.fromkeys(("accuracy_tolerance", "set_size_tolerance", "coverage_tolerance", "delta", "risk"), A_NUMBER),
    "n_next": Kind(whole_number, "a whole number"),
    **dict.fromkeys(("reference", "figures", "policy", "logits", "log", "state", "mix_out"), A_FILE),
    **dict.fromkeys(("kept_from", "protocol", "empty", "reliability", "by", "mondrian", "guarantee"), A_TEXT),
    "alpha": Kind(exact, EXACT),
    "max_wrong": Kind(exact, EXACT),
    "calibration_fraction": Kind(exact, EXACT),
    "alphas": Kind(_several(exact), f"{EXACT}, a range such as '0.01:0.99:0.01', or several of them"),
    "scorer": Kind(_scorer, A_SCORER),
    "scorers": Kind(_several(_scorer), f"{A_SCORER}, or several of them"),
    "parameters": Kind(
        _either(_by_name(_by_name(number)), _several(text)),
        "{'raps': {'penalty': 0.1}} or 'raps.penalty=0.1', the parameters of scorers",
    ),
    "split": Kind(_either(text, lambda value: str(whole_number(value))), "'all', a number of splits, 'seed:K' or 'file:PATH'"),
    "calibration_ids": Kind(_several(_level), "several ids of items"),
    "cluster": Kind(_clusters, "'question', 'item', 'subject', 'context', 'FILE:COLUMN', or a mapping from ids of items to clusters"),
    "prices": Kind(prices_of, "a mapping such as {'review': 2.0}, analyzer.studies.cost.Prices, or the path of a TOML file"),
    "subject_mix": Kind(mix_of, "a mapping such as {'law': 0.5, 'history': 0.5}, or the path of a TOML file"),
    "limits": Kind(_by_name(number), "a mapping from figures to numbers such as {'accuracy_loss': 0.02}"),
    "predictor": Kind(predictor_of, "a predictor, as calibrate returns it, or the path of its file"),
    "expect": Kind(
        _either(_by_name(_level), _several(text)), "fields of the run's key such as {'prompt_hash': '3f2a9c01'} or 'prompt_hash=3f2a9c01'"
    ),
}
# What functions accept beside the arguments that they name.
ACCEPTED: dict[str, tuple[str, ...]] = {"options": (*FIELDS, *ASKED), "selection": FIELDS}
