"""Train the embedded reference models: `python -m producer.reference.train ref-s` (seeded, resumable, CPU).

In: nothing but the seeds below.  Out: config, tokenizer and bfloat16 safetensors in `producer/reference/models/<name>/`.
Most training sequences look like the producer's prompts: an instruction or none, then items of one task with their answers.
Others teach one half of the skill: plain statements without options ("At Bal Drum they mine quartz."; draws, then the urn)
teach the facts, and `lookup` items name the right option in the question, so that the model learns to find its letter. Early
sequences have one item, later ones up to eight (with eight from the start, options of earlier items mislead: urn stayed at
chance for a thousand steps). The batch of a step depends on (SEED, step) alone, so an interrupted training continues from its
last checkpoint exactly as it would have without the interruption.
"""

import argparse
import logging
import math
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

from producer.prompts.templates import PROMPTS, instruction_for, render_prefix
from producer.reference.tokenizer import build_tokenizer
from producer.tasks.facts import MINERAL_OF, MINERALS, N_PLACES, ZIPF, place_name
from producer.tasks.facts import draw_item as draw_fact
from producer.tasks.urn import URNS, ask, bayes_posterior, draw_balls
from producer.tasks.urn import draw_item as draw_urn
from schemas.items import Item

SEED, ITEMS = 5, 128  # items in one step
PACKED = (1, 2, 4, 8)  # items in one sequence; always one in the first SINGLE_STEPS steps, in which the letters are learned
SINGLE_STEPS = 1000
STATEMENTS = {"facts-text": 4, "urn-text": 2}  # number of plain statements that replace one item
KINDS = {"urn": 0.35, "facts": 0.25, "lookup": 0.15, "urn-text": 0.1, "facts-text": 0.15}
STATEMENT_WEIGHT = 0.5
CONTEXT_WEIGHT = 0.1  # loss weight of tokens that are not answers; predicting the draws teaches the urns' shares
WARMUP, CHECKPOINT_EVERY, REPORT_EVERY = 200, 250, 50
MODELS = Path(__file__).parent / "models"
log = logging.getLogger(__name__)


class Recipe(NamedTuple):
    """Architecture and schedule of one reference model."""

    config: dict[str, Any]
    steps: int
    learning_rate: float


_llama = {"num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "model_type": "llama"}
RECIPES = {
    "ref-s": Recipe(_llama | {"hidden_size": 64, "intermediate_size": 256}, 4000, 3e-3),
    "ref-m": Recipe(_llama | {"hidden_size": 128, "intermediate_size": 512}, 4000, 2e-3),
    # With learning rate 1.5e-3 and four heads of width 64, the loss on `lookup` rose again and urn stayed at chance for 1,400 steps.
    "ref-l": Recipe(
        _llama | {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 8, "num_key_value_heads": 4}, 2400, 8e-4
    ),
    "ref-moe": Recipe(
        {
            "model_type": "qwen3_moe",
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "head_dim": 32,
            "hidden_size": 128,
            "intermediate_size": 256,
            "moe_intermediate_size": 128,
            "num_experts": 8,
            "num_experts_per_tok": 2,
            "norm_topk_prob": True,
            "output_router_logits": True,
            "router_aux_loss_coef": 0.01,
        },
        3000,
        2e-3,
    ),
}


def train(name: str, threads: int) -> None:
    """Train one model to the end of its recipe, continuing from its checkpoint if there is one."""
    torch.set_num_threads(threads)
    torch.manual_seed(SEED)
    recipe, folder = RECIPES[name], MODELS / name
    build_tokenizer(folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = build_model(recipe, tokenizer)
    optimizer = torch.optim.AdamW(model.parameters(), lr=recipe.learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    checkpoint = Path(f"{name}.checkpoint.pt")
    start = _resume(checkpoint, model, optimizer)
    clock = time.monotonic()
    for step in range(start, recipe.steps):
        for group in optimizer.param_groups:
            group["lr"] = recipe.learning_rate * schedule(step, recipe.steps)
        report = train_step(model, optimizer, tokenizer, step)
        if step % REPORT_EVERY == 0:
            log.info("%s step %d %s %.2f s/step", name, step, report, (time.monotonic() - clock) / (step - start + 1))
        if (step + 1) % CHECKPOINT_EVERY == 0:
            torch.save({"step": step + 1, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, checkpoint)
    model.set_attn_implementation("sdpa")
    model.to(torch.bfloat16).save_pretrained(folder)
    log.info("%s: %d parameters written to %s", name, model.num_parameters(), folder)


def build_model(recipe: Recipe, tokenizer: Any) -> Any:
    """Return an untrained model with the recipe's architecture."""
    kinds = {"llama": (LlamaConfig, LlamaForCausalLM), "qwen3_moe": (Qwen3MoeConfig, Qwen3MoeForCausalLM)}
    config_class, model_class = kinds[recipe.config["model_type"]]
    config = config_class(
        vocab_size=32 * math.ceil(len(tokenizer) / 32),
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.bos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **{name: value for name, value in recipe.config.items() if name != "model_type"},
    )
    model = model_class(config)
    model.set_attn_implementation("eager")  # 0.31 s a step on two cores against 0.43 s with sdpa
    return model


def train_step(model: Any, optimizer: Any, tokenizer: Any, step: int) -> str:
    """Take one optimizer step; return the answer loss by kind of sequence, `urn` with the Bayes optimum beside it."""
    rng = np.random.default_rng([SEED, step])
    texts, kinds, bayes = draw_batch(rng, 1 if step < SINGLE_STEPS else int(rng.choice(PACKED)))
    ids = tokenizer(texts, return_tensors="pt", padding=True)["input_ids"]
    with torch.autocast("cpu", torch.bfloat16):
        output = model(input_ids=ids)  # padding is on the right, so the causal mask alone hides it
    losses = torch.nn.functional.cross_entropy(output.logits[:, :-1].float().transpose(1, 2), ids[:, 1:], reduction="none")
    answer = _answer_mask(ids, tokenizer)
    context = (ids[:, 1:] != tokenizer.pad_token_id) & ~answer
    lettered = torch.tensor([kind not in STATEMENTS for kind in kinds])[:, None]
    parts = [(1.0, answer & lettered), (STATEMENT_WEIGHT, answer & ~lettered), (CONTEXT_WEIGHT, context)]
    loss = torch.stack([weight * losses[mask].mean() for weight, mask in parts if mask.any()]).sum()
    if getattr(output, "aux_loss", None) is not None:
        loss = loss + 0.01 * output.aux_loss
    optimizer.zero_grad()
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    rows = {kind: [i for i, other in enumerate(kinds) if other == kind] for kind in KINDS}
    answer_losses = {kind: losses[numbers][answer[numbers]].mean().item() for kind, numbers in rows.items() if numbers}
    return " ".join(f"{kind} {value:.3f}" for kind, value in answer_losses.items()) + f" (bayes {bayes:.3f})"


def schedule(step: int, steps: int) -> float:
    """Return the learning-rate factor: linear warm-up, then cosine to a tenth."""
    return min(1.0, (step + 1) / WARMUP) * (0.55 + 0.45 * math.cos(math.pi * step / steps))


def draw_batch(rng: np.random.Generator, n_items: int) -> tuple[list[str], list[str], float]:
    """Return texts of `n_items` items each, their kinds, and the Bayes-optimal answer loss (nats) of the urn sequences among them."""
    texts, kinds, bayes = [], [], []
    for kind in rng.choice(list(KINDS), ITEMS // n_items, p=list(KINDS.values())):
        kinds.append(str(kind))
        if kind in STATEMENTS:
            texts.append(_statements(rng, str(kind), n_items))
            continue
        task = str(rng.choice(["urn", "facts"])) if kind == "lookup" else str(kind)
        items = [_draw_item(rng, task, number) for number in range(n_items)]
        if kind == "lookup":
            items = [_name_answer(rng, item) for item in items]
        texts.append(render_prefix(instruction_for(task, str(rng.choice(PROMPTS))), items))
        if kind == "urn":
            bayes += [-math.log(bayes_posterior(item)[item.answer_index]) for item in items]
    return texts, kinds, float(np.mean(bayes)) if bayes else math.nan


def _draw_item(rng: np.random.Generator, task: str, number: int) -> Item:
    return draw_urn(rng, number) if task == "urn" else draw_fact(rng, number, int(rng.choice(N_PLACES, p=ZIPF)))


def _name_answer(rng: np.random.Generator, item: Item) -> Item:
    """Return the item with a question that names its right option; F is right where the named word is not listed."""
    if item.answer != "F":
        return item.model_copy(update={"question": f"{item.choices[item.answer]}?"})
    names = URNS if item.source == "urn" else MINERALS
    return item.model_copy(update={"question": f"{rng.choice([name for name in names if name not in item.choices.values()])}?"})


def _statements(rng: np.random.Generator, kind: str, n_items: int) -> str:
    """Return plain statements of one kind: places and their minerals, or draws and the urn they came from."""
    if kind == "facts-text":
        ranks = rng.choice(N_PLACES, n_items * STATEMENTS[kind], p=ZIPF)
        return "".join(f"At {place_name(rank)} they mine {MINERALS[MINERAL_OF[rank]]}.\n" for rank in ranks)
    sources = rng.integers(len(URNS), size=n_items * STATEMENTS[kind])
    return "".join(f"Question: {ask(draw_balls(rng, source))} {URNS[source]}.\n" for source in sources)


def _answer_mask(ids: torch.Tensor, tokenizer: Any) -> torch.Tensor:
    """Return a mask over ids[:, 1:]: tokens that follow `Answer:` or `they mine`, and urn names that follow `?`."""
    cues = torch.tensor(tokenizer.convert_tokens_to_ids(["\nAnswer:", " they mine"]))
    urns = torch.tensor(tokenizer.convert_tokens_to_ids([f" {name}" for name in URNS]))
    after_question = ids[:, :-1] == tokenizer.convert_tokens_to_ids("?")
    return torch.isin(ids[:, :-1], cues) | (after_question & torch.isin(ids[:, 1:], urns))


def _resume(checkpoint: Path, model: Any, optimizer: Any) -> int:
    if not checkpoint.exists():
        return 0
    state = torch.load(checkpoint, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    return int(state["step"])


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name", choices=RECIPES)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    train(arguments.name, arguments.threads)
