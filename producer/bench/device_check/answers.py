"""The embedded models on the device and on the CPU: are the option logits the same up to rounding?

Rounding is bounded in two ways. In float32 no logit may differ by more than `SAME` of the largest. In 16 bits the device's answers may lie
`FARTHER` times as far from the float32 answers of the CPU as the CPU's own 16-bit answers do, on average over items and options: a bound
on single logits would refuse a mixture of experts, in which rounding sends a token to another expert.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from producer.bench.device_check.finding import Finding, Measured, Where, attempt
from producer.engine.answer import answer
from producer.engine.layer_source import Target
from producer.engine.prefill import Answers
from producer.engine.settings import Settings
from producer.models.find import REFERENCE, ModelFiles, find_model
from producer.models.load import load_config, load_model, load_tokenizer
from producer.prompts.encode import Prompts, encode, option_tokens
from producer.tasks.source import draw, load_task

SAME = 1e-4
FARTHER = 1.5
CHECKED = 16  # items of the self-check
WINDOWLESS = "dynamic"  # a kind of rotary embeddings that the engine leaves to the model's own forward pass


class Questions(NamedTuple):
    """Prompts of an embedded task for one model, and the tokens of its options."""

    files: ModelFiles
    prompts: Prompts
    options: tuple[int, ...]

    def answers(self, model: Any, device: str, settings: Settings, *, loaded: bool = True) -> Answers:
        """Return a model's answers, computed on a device; `loaded` says whether the weights are there."""
        return answer(model, self.prompts, self.options, Target(device, model.dtype), settings, lambda _: None, loaded=loaded)


def questions(name: str, n_items: int) -> Questions:
    """Return the questions of task `urn`, with demonstrations, for an embedded model."""
    files, items = find_model(name), draw(load_task("urn"), n_items, 0)
    tokenizer = load_tokenizer(files)
    prompts = encode(tokenizer, "", items.demonstrations, items.items, load_config(files).max_position_embeddings)
    return Questions(files, prompts, option_tokens(tokenizer, max(len(item.choices) for item in items.items)).ids)


def logits(where: Where) -> Iterator[Finding]:
    """Yield every embedded model in float32 and bfloat16: all weights on the device, layer by layer, and by its own forward pass."""
    for name in REFERENCE:
        asked = questions(name, 48 if where.small else 400)
        exact = asked.answers(load_model(asked.files, "float32", "cpu"), "cpu", Settings())
        yield attempt(f"{name} float32", partial(_float32, asked, exact, where.device))
        yield attempt(f"{name} bfloat16", partial(_bfloat16, asked, exact, where.device))
        yield attempt(f"{name} by its own forward pass", partial(_own_forward, asked, exact, where.device))


def _float32(asked: Questions, exact: Answers, device: str) -> Measured:
    measured = Measured()
    resident = asked.answers(load_model(asked.files, "float32", device), device, Settings(self_check=CHECKED))
    streamed = asked.answers(load_model(asked.files, "float32", "cpu"), device, Settings(self_check=CHECKED), loaded=False)
    for kind, answers in {"in memory": resident, "layer by layer": streamed}.items():
        measured.at_most(f"largest difference {kind}", largest_difference(answers, exact), SAME)
        measured.at_most(f"self-check {kind}", answers.noise_floor["logit_change"] / largest_logit(exact), SAME)
        measured.require(bool((answers.top_token == exact.top_token).mean() > 0.99), f"other most likely tokens {kind}")
    return measured


def _bfloat16(asked: Questions, exact: Answers, device: str) -> Measured:
    measured = Measured()
    usual = mean_difference(asked.answers(load_model(asked.files, "bfloat16", "cpu"), "cpu", Settings()), exact)
    resident = asked.answers(load_model(asked.files, "bfloat16", device), device, Settings(self_check=CHECKED))
    streamed = asked.answers(load_model(asked.files, "bfloat16", "cpu"), device, Settings(self_check=CHECKED), loaded=False)
    for kind, answers in {"in memory": resident, "layer by layer": streamed}.items():
        measured.at_most(f"mean difference over the CPU's {kind}", mean_difference(answers, exact) / usual, FARTHER)
        measured.figures[f"self-check {kind}"] = answers.noise_floor["logit_change"] / largest_logit(exact)
        measured.figures[f"self-check flips {kind}"] = answers.noise_floor["flips"]
    return measured


def _own_forward(asked: Questions, exact: Answers, device: str) -> Measured:
    """Compare the path of models that the engine cannot run, with weights on the device and, on a GPU, copied there module by module."""
    measured = Measured()
    for kind, home in {"in memory": device, **({} if device == "cpu" else {"copied module by module": "cpu"})}.items():
        model = load_model(asked.files, "float32", home)
        model.config.rope_parameters = {**model.config.rope_parameters, "rope_type": WINDOWLESS}  # the config alone: no number changes
        answers = asked.answers(model, device, Settings(self_check=CHECKED), loaded=home == device)
        measured.require(bool(answers.notes), "the engine answered in place of the model's own forward pass")
        measured.at_most(f"largest difference {kind}", largest_difference(answers, exact), SAME)
    return measured


def largest_logit(answers: Answers) -> float:
    """Return the largest absolute option logit."""
    return float(np.abs(answers.logits).max())


def largest_difference(answers: Answers, exact: Answers) -> float:
    """Return the largest difference of an option logit or log-sum-exp, as a share of the largest logit."""
    gaps = [np.abs(answers.logits - exact.logits).max(), np.abs(answers.logsumexp - exact.logsumexp).max()]
    return float(max(gaps)) / largest_logit(exact)


def mean_difference(answers: Answers, other: Answers) -> float:
    """Return the mean absolute difference of option logits."""
    return float(np.abs(answers.logits - other.logits).mean())
