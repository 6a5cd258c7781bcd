"""`store import inspect`: log-probabilities of letters, checked against the log's own scores."""

from pathlib import Path
from typing import Any

import pytest
from inspect_writer import sample, write_log

from schemas.errors import UsageError
from store.importers.importer import Description
from store.importers.inspect_log import read_inspect


def test_a_cue_whose_first_token_is_a_letter(tmp_path: Path) -> None:
    """Tokenizers may split ANSWER into A and NSWER, and end with a special token; the answer is the letter behind the cue."""
    one = sample(0, [-1.0, -0.5, -3.0], "B")
    content = one["output"]["choices"][0]["logprobs"]["content"]
    parts = [{"token": part, "logprob": -0.1, "top_logprobs": content[-1]["top_logprobs"]} for part in ("A", "NSWER", ":")]
    one["output"]["choices"][0]["logprobs"]["content"] = [*parts, content[-1], {"token": "<|im_end|>", "logprob": 0.0, "top_logprobs": []}]
    [(_, run)] = read_inspect(write_log(tmp_path / "log.json", [one]), Description())
    assert run.logits.tolist() == [[-1.0, -0.5, -3.0]]


def changed(**fields: Any) -> dict[str, Any]:
    return sample(0, [-1.0, -2.0, -3.0], "A") | fields


def test_letters_are_read_where_the_answer_stands(tmp_path: Path) -> None:
    """With and without the cue, with and without a space, whatever letter the model gave; long texts are attachments."""
    long = sample(3, [-1.0, -2.0], "B")
    long |= {"input": "attachment://ab", "attachments": {"ab": "A long question?"}}
    forms = [sample(0, [-1.0, -2.0], "A"), sample(1, [-1.0, -2.0], "A", before="", space=""), sample(2, [-1.0, -2.0], "B", given="B"), long]
    [(items, run)] = read_inspect(write_log(tmp_path / "log.json", forms), Description())
    assert run.logits.tolist() == [[-1.0, -2.0]] * 4 and items.answer.tolist() == [0, 0, 1, 1]
    assert (run.key.model, run.key.task, items.items[3].question) == ("hf/toy", "arc", "A long question?")
    [(_, named)] = read_inspect(tmp_path / "log.json", Description(model="m", task="t"))
    assert (named.key.model, named.key.task) == ("m", "t")


def cut() -> dict[str, Any]:
    one = sample(0, [-1.0, -2.0, -3.0], "A")
    one["output"]["choices"][0]["logprobs"]["content"][-1]["top_logprobs"].pop()
    return one


def spaced() -> dict[str, Any]:
    one = sample(0, [-1.0, -2.0], "A")
    one["output"]["choices"][0]["logprobs"]["content"][-1]["top_logprobs"][1]["token"] = "B"  # not the form that the model gave
    return one


@pytest.mark.parametrize(
    ("one", "said"),
    [
        (cut(), "C is not among the 3 log-probabilities|C is not among the 2 log-probabilities"),
        (spaced(), "B is not among the"),
        (changed(epoch=2), "asked more than once"),
        (changed(target=["A", "B"]), "its target 'A,B' is not one of the letters ABC"),
        (changed(target="AB"), "its target 'AB'"),
        (changed(scores={"choice": {"value": "I", "answer": "A"}}), "the model gave A and the target is A, but its score says 'A', 'I'"),
        (changed(scores={"choice": {"value": "C", "answer": "B"}}), "its score says 'B', 'C'"),
        (changed(scores={"choice": {"value": "C", "answer": "A", "explanation": "Choices were shuffled before"}}), "were shuffled"),
        (changed(scores={}), "no score of the scorer 'choice'"),
        (changed(output={"choices": [{"logprobs": None}]}), "it has no log-probabilities"),
        (changed(choices=None), "it has 0 choices"),
        (sample(0, [-1.0, -2.0], "A", before="Let me think. ANSWER:"), "alone; what follows its own words is another question"),
        (sample(0, [1.0, -2.0], "A"), "1 is no log-probability"),
    ],
)
def test_samples_that_cannot_be_read_are_refused(tmp_path: Path, one: dict[str, Any], said: str) -> None:
    """The sentence names file and sample; nothing is filled in."""
    with pytest.raises(UsageError, match=said) as caught:
        list(read_inspect(write_log(tmp_path / "log.json", [one]), Description()))
    assert "log.json, sample 'q0'" in str(caught.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    """A packed log with the command that unpacks it, a log without samples, and other JSON."""
    (tmp_path / "log.eval").write_bytes(b"PK")
    with pytest.raises(UsageError, match=r"inspect log convert log.eval --to json"):
        list(read_inspect(tmp_path / "log.eval", Description()))
    with pytest.raises(UsageError, match="it has no samples"):
        list(read_inspect(write_log(tmp_path / "log.json", []), Description()))
    (tmp_path / "log.json").write_text("[1]")
    with pytest.raises(UsageError, match="is not a log of inspect"):
        list(read_inspect(tmp_path / "log.json", Description()))
