"""`store import lighteval`: details of multiple-choice tasks, checked against their own acc."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from lighteval_writer import detail, write_details

from schemas.errors import UsageError
from store.importers.importer import Description
from store.importers.lighteval import read_lighteval

NAMED = Description(model="org/toy")


def rows(n_items: int = 30, task: str = "arc:easy|0") -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [detail(i, (-rng.exponential(size=3 + i % 3)).tolist(), int(rng.integers(3)), task) for i in range(n_items)]


def test_accuracy_is_the_files_own(tmp_path: Path) -> None:
    """Numbers and answers are those of the rows, and so is the accuracy."""
    written = rows()
    [(items, run)] = read_lighteval([write_details(tmp_path / "d.parquet", written)], NAMED)
    own = np.mean([row["metric"]["acc"] for row in written])
    assert np.mean(np.nanargmax(run.logits, axis=1) == items.answer) == pytest.approx(own) and 0 < own < 1
    assert run.logits[4, :4].tolist() == np.array(written[4]["model_response"]["logprobs"], np.float32).tolist()
    assert items.items[4].choices["B"] == "4-1" and run.key.task == "arc:easy|0"


def test_files_of_one_benchmark_are_subjects(tmp_path: Path) -> None:
    """With a task one run of all, whose subjects are the files' tasks; without, one each."""
    files = [write_details(tmp_path / f"{name}.parquet", rows(5, name)) for name in ("law", "art")]
    [(items, run)] = read_lighteval(files, Description(model="m", task="mmlu"))
    assert items.subjects == ("art", "law") and len(run.logits) == 10 and items.items[0].id == "law/0"
    assert [run.key.task for _, run in read_lighteval(files, NAMED)] == ["law", "art"]
    with pytest.raises(UsageError, match="two files hold details of law"):
        list(read_lighteval([files[0], files[0]], NAMED))


def test_choices_asked_without_the_question_come_after(tmp_path: Path) -> None:
    """Twice as many log-likelihoods as choices: the first half is that of the question."""
    row = detail(0, [-1.0, -2.0], 0)
    row["model_response"]["logprobs"] = [-1.0, -2.0, -0.1, -0.2]
    [(_, run)] = read_lighteval([write_details(tmp_path / "d.parquet", [row])], NAMED)
    assert run.logits.tolist() == [[-1.0, -2.0]]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        (detail(0, [-1.0, -2.0], 0, acc=0), "its likeliest choice is 0 and its answer 0, but its own acc is 0"),
        (detail(0, [-1.0, -2.0], 0, acc_norm=1), "no acc that log-likelihoods could be checked with; its own results are acc_norm"),
        (detail(0, [-1.0, -2.0], [0, 1]), "2 right answers"),
        (detail(0, [-1.0, -2.0], 5), "gold_index 5 is none of its 2 choices"),
        (detail(0, [-1.0, 2.0], 1), "2 is no log-likelihood"),
        (detail(0, [-1.0], 0), "1 choices; expected 2 to 26"),
        (detail(0, [-1.0] * 27, 0), "27 choices; expected 2 to 26"),
    ],
)
def test_rows_that_contradict_themselves_are_refused(tmp_path: Path, row: dict[str, Any], said: str) -> None:
    """The sentence names file and row."""
    with pytest.raises(UsageError, match=said) as caught:
        list(read_lighteval([write_details(tmp_path / "d.parquet", [row])], NAMED))
    assert "d.parquet row 0" in str(caught.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    """Generated answers without log-likelihoods, several tasks in one file, other columns, and no name of the model."""
    generated = detail(0, [-1.0, -2.0], 0)
    generated["model_response"]["logprobs"] = []
    with pytest.raises(UsageError, match="0 log-likelihoods for 2 choices"):
        list(read_lighteval([write_details(tmp_path / "g.parquet", [generated])], NAMED))
    with pytest.raises(UsageError, match="documents of 2 tasks"):
        list(read_lighteval([write_details(tmp_path / "m.parquet", rows(2) + rows(2, "other"))], NAMED))
    with pytest.raises(UsageError, match="has no column doc; expected details of lighteval"):
        list(read_lighteval([write_details(tmp_path / "o.parquet", [{"predictions": "x", "metrics": 1}])], NAMED))
    with pytest.raises(UsageError, match="name it with --model"):
        list(read_lighteval([write_details(tmp_path / "d.parquet", rows(2))], Description()))
