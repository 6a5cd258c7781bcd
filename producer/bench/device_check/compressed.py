"""Every compression method on the device: with its post-conditions, compared with the same method on the CPU, and layer by layer.

A method decides: it rounds a weight up or down, keeps it or not. Another order of summation turns some decisions, so what two devices make
is compared by how it changes the model: the mean difference of their option logits may be at most `APART` of the mean difference from the
dense model. Two models that share no more than the method and the level lie about 1.4 apart.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from producer.bench.device_check.answers import Questions, mean_difference, questions
from producer.bench.device_check.finding import Finding, Measured, Where, attempt
from producer.engine.prefill import Answers
from producer.engine.settings import Settings
from producer.methods import METHODS
from producer.methods.shared.compression_data import draw_compression_data
from producer.models.load import load_config, load_model, load_tokenizer
from schemas.levels import Level, parse_level

APART = 0.8
LEARNS = ("spinquant",)  # steps of gradient descent: what is learned depends on the last bit, so the distance is measured and not judged
MORE_LEVELS = {"rtn": ("w8a8-fp8", "nvfp4"), "gptq": ("w8a8-fp8",), "kv": ("int4", "nvfp4"), "magnitude": ("2:4",), "wanda": ("2:4",)}
SWEPT = {"wanda": ("0.3", "0.5", "2:4"), "rtn": ("w8a16-g32", "w4a16-g32"), "slicegpt": ("0.1", "0.2")}


class Work(NamedTuple):
    """One method at one level on one model."""

    method: str
    level: Level
    asked: Questions
    data: Any

    def made(self, dtype: str, home: str, device: Any = None) -> Any:
        """Return the compressed model and its post-conditions; it lies on `home`, and its layers are compressed on `device`."""
        model, method = load_model(self.asked.files, dtype, home), METHODS[self.method]
        return next(method.sweep(model, [self.level], self.data if method.needs_data(self.level) else None, 0, device))


def resident(name: str) -> Callable[[Where], Iterator[Finding]]:
    """Return the step that compresses a model in float32 with all weights on the device, and compares with the CPU."""
    return partial(_each, name, _resident)


def layer_by_layer(name: str) -> Callable[[Where], Iterator[Finding]]:
    """Return the step that compresses a model on the host one layer at a time on the device, and compares with all weights there."""
    return partial(_each, name, _layer_by_layer)


def in_16_bits(name: str) -> Callable[[Where], Iterator[Finding]]:
    """Return the step that compresses a model in bfloat16 on the device, and then to several levels in one sweep."""

    def step(where: Where) -> Iterator[Finding]:
        yield from _each(name, _in_16_bits, where)
        asked, data = _asked(name, where)
        for method, levels in SWEPT.items():
            yield attempt(f"{method} {', '.join(levels)} in one sweep", partial(_swept, asked, data, method, levels, where.device))

    return step


def _each(name: str, measure: Callable[[Work, str], Measured], where: Where) -> Iterator[Finding]:
    asked, data = _asked(name, where)
    config = load_config(asked.files)
    for method, entry in METHODS.items():
        for asked_for in [entry.default_for(config), *map(parse_level, MORE_LEVELS.get(method, ()))]:
            level = entry.level_for(config, asked_for)
            yield attempt(f"{method} {level.text}", partial(measure, Work(method, level, asked, data), where.device))


def _asked(name: str, where: Where) -> tuple[Questions, Any]:
    asked, size = questions(name, 24 if where.small else 100), (16, 64) if where.small else (32, 128)
    return asked, draw_compression_data("embedded", load_tokenizer(asked.files), sequences=size[0], length=size[1])


def _resident(work: Work, device: str) -> Measured:
    dense = work.asked.answers(load_model(work.asked.files, "float32", "cpu"), "cpu", Settings())
    on_cpu = work.asked.answers(work.made("float32", "cpu").model, "cpu", Settings())
    applied = work.made("float32", device)
    return _compared(work, dict(applied.conditions), work.asked.answers(applied.model, device, Settings()), on_cpu, dense)


def _layer_by_layer(work: Work, device: str) -> Measured:
    import torch

    dense = work.asked.answers(load_model(work.asked.files, "float32", device), device, Settings())
    usual = work.asked.answers(work.made("float32", device).model, device, Settings())
    applied = work.made("float32", "cpu", torch.device(device))
    answers = work.asked.answers(applied.model, device, Settings(), loaded=False)
    return _compared(work, dict(applied.conditions), answers, usual, dense)


def _in_16_bits(work: Work, device: str) -> Measured:
    applied = work.made("bfloat16", device)
    measured = Measured({"logit change": applied.conditions["logit_change"]})
    answers = work.asked.answers(applied.model, device, Settings())
    measured.require(bool(np.isfinite(answers.logits).all()), "some logits are NaN or infinite")
    return measured


def _swept(asked: Questions, data: Any, method: str, levels: tuple[str, ...], device: str) -> Measured:
    """Compare each level of one sweep, which starts from copies of the dense model, with that level alone."""
    measured, entry = Measured(), METHODS[method]
    parsed = [parse_level(text) for text in levels]
    needed = data if any(map(entry.needs_data, parsed)) else None
    dense = asked.answers(load_model(asked.files, "float32", device), device, Settings())
    for level, applied in zip(parsed, entry.sweep(load_model(asked.files, "float32", device), parsed, needed, 0), strict=True):
        alone = asked.answers(Work(method, level, asked, data).made("float32", device).model, device, Settings())
        answers = asked.answers(applied.model, device, Settings())
        measured.at_most(f"apart at {level.text}", apart(answers, alone, dense), APART)
    return measured


def _compared(work: Work, conditions: dict[str, Any], answers: Answers, usual: Answers, dense: Answers) -> Measured:
    measured = Measured({"logit change": conditions["logit_change"]})
    measured.require(bool(np.isfinite(answers.logits).all()), "some logits are NaN or infinite")
    distance = apart(answers, usual, dense)
    measured.at_most("apart", distance, float("inf") if work.method in LEARNS else APART)
    return measured


def apart(answers: Answers, usual: Answers, dense: Answers) -> float:
    """Return how far two compressed models lie apart, as a share of the second one's distance from the dense model.

    Where the method changes nothing, it is the share of the largest logit instead.
    """
    changed = mean_difference(usual, dense)
    return mean_difference(answers, usual) / (changed if changed > 1e-4 * np.abs(dense.logits).max() else float(np.abs(dense.logits).max()))
