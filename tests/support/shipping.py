"""Predictors for tests of what is shipped: a run in memory, and its predictor."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from analyzer_data import skilled_logits

from analyzer.api import calibrate
from analyzer.predictor import Predictor
from analyzer.predictor.document import sealed


def data_set(n_items: int = 400, n_options: int = 4, seed: int = 0, skill: float = 1.5, **attributes: str) -> xr.Dataset:
    """A run whose items have two subjects and, beside the widest, questions of three options."""
    rng = np.random.default_rng(seed)
    answers = rng.integers(0, 3, n_items)
    logits = skilled_logits(rng, answers, n_options, skill)
    logits[::7, 3:] = np.nan
    subject = np.where(np.arange(n_items) % 2 == 0, "law", "history")
    data = {"logits": (("item", "option"), logits), "answer": ("item", answers), "subject": ("item", subject)}
    return xr.Dataset(data, attrs={"model": "m", "task": "t"} | attributes)


def made(**options: Any) -> Predictor:
    return calibrate(data_set(), **options)


def rewritten(path: Path, predictor: Predictor, change: Callable[[dict[str, Any]], object], *, seal: bool = True) -> Path:
    """A file like the predictor's but for a change; `seal` gives it a digest that matches again."""
    value = json.loads(json.dumps(predictor.document.value))
    change(value)
    path.write_text(json.dumps(sealed(value) if seal else value), encoding="utf-8")
    return path
