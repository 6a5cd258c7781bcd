"""The importer of samples against their writer: lm-evaluation-harness runs an embedded model on local tasks, and accuracy is its own."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from producer.tasks.facts import facts
from schemas.errors import UsageError
from store.importers.importer import Description
from store.importers.lm_eval import read_lm_eval

pytestmark = [pytest.mark.slow, pytest.mark.producer]

MODEL = Path(__file__).parents[2] / "producer" / "reference" / "models" / "ref-m"
N = 60
FUNCTIONS = '''
def sentence_index(doc):
    return int(doc["answer"]) - 1


def sentence_contexts(doc):
    blank = doc["sentence"].index("_")
    return [doc["sentence"][:blank] + doc[name] for name in ("option1", "option2")]


def sentence_end(doc):
    return doc["sentence"][doc["sentence"].index("_") + 1 :].strip()


def share_of_right(doc, results):
    import numpy as np

    probs = np.exp([likelihood for likelihood, _ in results])
    return {"acc": float(probs[np.array(doc["labels"]) == 1].sum() / probs.sum())}
'''
# Each is written as the harness's own task of that kind is (winogrande, truthfulqa_mc1, truthfulqa_mc2, mmlu, mmlu_continuation).
TASKS = {
    "wino": "doc_to_text: !function functions.sentence_index\ndoc_to_target: !function functions.sentence_end\n"
    "doc_to_choice: !function functions.sentence_contexts\nmetric_list: [{metric: acc}]",
    "mc1": 'doc_to_text: "{{question}}\\nAnswer:"\ndoc_to_target: 0\ndoc_to_choice: "{{right_first}}"\n'
    "metric_list: [{metric: acc}, {metric: acc_norm}, {metric: acc_bytes}]",
    "mc2": 'doc_to_text: "{{question}}\\nAnswer:"\ndoc_to_target: 0\ndoc_to_choice: "{{choices}}"\n'
    "process_results: !function functions.share_of_right\nmetric_list: [{metric: acc}]",
    "letters_law": 'doc_to_text: "{{question}}\\nAnswer:"\ndoc_to_target: answer\ndoc_to_choice: ["A", "B", "C", "D"]\n'
    "metric_list: [{metric: acc}]",
    "letters_art": 'doc_to_text: "Art: {{question}}\\nAnswer:"\ndoc_to_target: answer\ndoc_to_choice: ["A", "B", "C", "D"]\n'
    "metric_list: [{metric: acc}]",
    "continuation": 'doc_to_text: "{{question}}\\nAnswer:"\ndoc_to_target: "{{answer}}"\ndoc_to_choice: "{{digits}}"\n'
    "metric_list: [{metric: acc}, {metric: acc_norm}, {metric: acc_mutual_info}]",
    "text_target": 'doc_to_text: "{{question}}\\nAnswer:"\ndoc_to_target: digit\ndoc_to_choice: "{{digits}}"\nmetric_list: [{metric: acc}]',
    "bytes_only": 'doc_to_text: "{{question}}\\nAnswer:"\ndoc_to_target: answer\ndoc_to_choice: "{{choices}}"\n'
    "metric_list: [{metric: acc_bytes}]",
    "two_filters": 'doc_to_text: "{{question}}\\nAnswer:"\ndoc_to_target: answer\ndoc_to_choice: "{{choices}}"\n'
    "metric_list: [{metric: acc}]\n"
    "filter_list: [{name: first, filter: [{function: take_first}]}, {name: second, filter: [{function: take_first}]}]",
    "several_answers": 'doc_to_text: "{{question}}\\nAnswer:"\ndoc_to_target: "{{several}}"\ndoc_to_choice: "{{choices}}"\n'
    "metric_list: [{metric: acc}]",
}
NAMED = Description(model="ref-m")


def document(number: int) -> dict[str, Any]:
    """Return one document with the fields of all tasks."""
    item = facts(N)[number]
    choices = [*list(item.choices.values())[:4]]
    answer = "ABCD".find(item.answer) if item.answer in "ABCD" else number % 4
    digits = [str((number + k) % 4) for k in range(4)]
    sentence = {"sentence": f"Item {number}: the cup fell on the vase since the _ was heavy.", "option1": "cup", "option2": "vase"}
    right_first = [choices[answer], *(text for k, text in enumerate(choices) if k != answer)]
    texts = {"question": item.question, "choices": [f"{text} ü{'x' * (number * k % 5)}" for k, text in enumerate(choices)]}
    labels = {"labels": [int(k in (answer, (answer + 1) % 4)) for k in range(4)], "several": [answer, (answer + 1) % 4]}
    return sentence | texts | labels | {"answer": answer, "digits": digits, "digit": digits[answer], "right_first": right_first}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Path], dict[str, Any]]:
    """Return the samples file of each task and the harness's own results."""
    pytest.importorskip("lm_eval")
    folder = tmp_path_factory.mktemp("lm_eval")
    documents = [document(number) for number in range(N)]
    (folder / "documents.jsonl").write_text("\n".join(map(json.dumps, documents)))
    wino = [{**one, "answer": str(number % 2 + 1)} for number, one in enumerate(documents)]
    (folder / "wino.jsonl").write_text("\n".join(map(json.dumps, wino)))
    (folder / "functions.py").write_text(FUNCTIONS)
    for name, text in TASKS.items():
        data = folder / ("wino.jsonl" if name == "wino" else "documents.jsonl")
        head = f"task: local_{name}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {data}}}}}\ntest_split: test\n"
        (folder / f"{name}.yaml").write_text(f"{head}output_type: multiple_choice\n{text}\n")
    command = [sys.executable, "-m", "lm_eval", "--model", "hf", "--model_args", f"pretrained={MODEL}", "--device", "cpu"]
    command += ["--tasks", ",".join(f"local_{name}" for name in TASKS), "--include_path", str(folder), "--batch_size", "16"]
    environment = os.environ | {"HF_HOME": str(folder / "hf"), "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*command, "--log_samples", "--output_path", str(folder / "out")], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    [results] = (folder / "out").rglob("results_*.json")
    files = {name: next((folder / "out").rglob(f"samples_local_{name}_*.jsonl")) for name in TASKS}
    return files, json.loads(results.read_text())["results"]


@pytest.mark.parametrize(
    ("task", "metric", "filter_"),
    [
        ("wino", None, "none"),
        ("mc1", None, "none"),
        ("mc1", "acc_norm", "none"),
        ("mc1", "acc_bytes", "none"),
        ("letters_law", None, "none"),
        ("continuation", None, "none"),
        ("continuation", "acc_mutual_info", "none"),
        ("text_target", None, "none"),
        ("bytes_only", "acc_bytes", "none"),
        ("two_filters", None, "second"),
    ],
)
def test_our_accuracy_is_the_harness_own(written, task, metric, filter_):
    """Every way of asking comes in with one item per document, and with exactly the accuracy that the harness printed."""
    files, results = written
    [(items, run)] = read_lm_eval([files[task]], NAMED, metric)
    own = results[f"local_{task}"][f"{metric or 'acc'},{filter_}"]
    assert len(items) == N and set(items.n_options) == {2 if task == "wino" else 4}
    assert np.mean(np.argmax(run.logits, axis=1) == items.answer) == pytest.approx(own, abs=1e-12)
    assert 0 < own < 1


def test_answers_are_those_of_the_documents(written):
    """The index of the answer, which the log does not hold for choices in the context, is that of the documents."""
    files, _ = written
    answers = [document(number)["answer"] for number in range(N)]
    for task, wanted in (("wino", [number % 2 for number in range(N)]), ("continuation", answers), ("mc1", [0] * N)):
        [(items, _)] = read_lm_eval([files[task]], NAMED)
        assert items.answer.tolist() == wanted, task


def test_subjects_in_files_of_their_own_are_one_run(written):
    """Two tasks under one name are one run with two subjects; its accuracy is the mean of the harness's own."""
    files, results = written
    [(items, run)] = read_lm_eval([files["letters_law"], files["letters_art"]], Description(model="ref-m", task="letters"))
    own = np.mean([results[f"local_letters_{name}"]["acc,none"] for name in ("law", "art")])
    assert items.subjects == ("local_letters_art", "local_letters_law") and len(items) == 2 * N
    assert np.mean(np.argmax(run.logits, axis=1) == items.answer) == pytest.approx(own, abs=1e-12)


@pytest.mark.parametrize(("task", "words"), [("mc2", "several answers are right"), ("several_answers", "several right answers")])
def test_several_right_answers_are_refused(written, task, words):
    """Where several answers are right there is no single answer to be in the set, and the file says so."""
    with pytest.raises(UsageError, match=words):
        list(read_lm_eval([written[0][task]], NAMED))
