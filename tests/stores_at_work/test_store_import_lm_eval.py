"""The importer of lm-evaluation-harness samples, on small samples written by hand."""

import json

import pytest

from schemas.errors import UsageError
from store.importers.importer import Description
from store.importers.lm_eval import read_lm_eval

NAMED = Description(model="org/model", task="arc")


SAMPLE = {
    "doc_id": 0,
    "doc": {"question": "2 + 2?"},
    "target": "1",
    "arguments": {f"gen_args_{i}": {"arg_0": "Q: 2 + 2?\nA:", "arg_1": f" {text}"} for i, text in enumerate(("three", "four"))},
    "resps": [[["-3.5", "False"]], [["-0.5", "True"]]],
    "filtered_resps": [["-3.5", "False"], ["-0.5", "True"]],
}


OLDER = {"arguments": [["Q", " three"], ["Q", " four"]], "filtered_resps": [[-3.5, False], [-0.5, True]]}


@pytest.mark.parametrize("changes", [{}, {"target": 1}, {"target": "four"}, {"target": "B"}, OLDER])
def test_lm_eval_samples_are_imported(tmp_path, changes):
    """Samples of old and new versions of the harness become items and log-likelihoods."""
    path = tmp_path / "samples_arc_easy_2026-01-02T03-04-05.678.jsonl"
    path.write_text("\n".join(json.dumps({**SAMPLE, **changes, "doc_id": i}) for i in range(3)))
    [(items, run)] = read_lm_eval([path], Description(model="org/model"))
    assert run.key.task == "arc_easy" and run.logits.tolist() == [[-3.5, -0.5]] * 3 and items.answer.tolist() == [1, 1, 1]
    assert run.env.origin.startswith("lm-eval samples_arc_easy")


OTHER_KINDS = [{"filtered_resps": ["text"]}, {"target": "seven"}, {"target": 5}, {"arguments": []}, {"filtered_resps": [["1", "x"]]}]


@pytest.mark.parametrize("changes", OTHER_KINDS)
def test_samples_of_other_kinds_are_refused(tmp_path, changes):
    """A generation task, an unknown target or a single choice is named with its line."""
    path = tmp_path / "samples_gsm8k.jsonl"
    path.write_text(json.dumps({**SAMPLE, **changes}))
    with pytest.raises(UsageError, match="line 1 is not a multiple-choice sample"):
        list(read_lm_eval([path], NAMED))
