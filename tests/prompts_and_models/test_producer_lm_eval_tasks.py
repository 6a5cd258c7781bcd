"""`--task lm-eval:NAME`: documents, choices and targets of lm-evaluation-harness as items; offline, on local tasks and data."""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from producer.cli.main import main
from producer.tasks.lm_eval_task import load_lm_eval
from schemas.errors import HedgemarkError, ItemError, UsageError
from schemas.items import Item

pytestmark = [pytest.mark.producer]
pytest.importorskip("lm_eval")
FUNCTIONS = """
def contexts(doc):
    return [doc["question"] + text for text in doc["choices"]["text"]]


def share_of_right(doc, results):
    return {"acc": 0.5}


def as_usual(doc, results):
    return {"acc": float(max(range(len(results)), key=lambda k: results[k][0]) == doc["index"])}
"""
INDEX = '"{{choices.label.index(answerKey)}}"'
ARC = f'doc_to_text: "Question: {{{{question}}}}\\nAnswer:"\ndoc_to_target: {INDEX}\ndoc_to_choice: "{{{{choices.text}}}}"\n'
LETTERS = (
    'doc_to_text: "{{question}}\\nA. {{ten[0]}}\\nB. {{ten[1]}}\\nC. {{ten[2]}}\\nD. {{ten[3]}}\\nE. {{ten[4]}}\\nF. {{ten[5]}}\\n'
    'G. {{ten[6]}}\\nH. {{ten[7]}}\\nI. {{ten[8]}}\\nJ. {{ten[9]}}\\nAnswer:"\n'
    'doc_to_choice: ["A", "B", "C", "D", "E", "F", "G", "H", "I", "J"]\ndoc_to_target: tenth\n'
)
WINO = "doc_to_text: index\ndoc_to_target: word\ndoc_to_choice: !function functions.contexts\n"
ACC = "metric_list: [{metric: acc}]\n"
N = 9


def documents() -> list[dict[str, Any]]:
    """ARC's form, with three to five options and numbers as labels, beside fields of the other forms."""
    found = []
    for i in range(N):
        count = 3 + i % 3
        texts = [f"{i + k} {'apples' if k % 2 else 'pears'}" for k in range(count)]
        ten = [f"{i}-{k}" for k in range(10)]
        choices = {"text": texts, "label": [str(k + 1) for k in range(count)]}
        more = {"ten": ten, "tenth": (7 * i) % 10, "index": (i + 1) % count, "several": [0, 1], "word": texts[i % count], "unknown": -1}
        found.append({"question": f"How many fruits are {i}?", "choices": choices, "answerKey": str((i + 1) % count + 1), **more})
    return found


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with local data and functions, and a data sets cache of its own."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "data.jsonl").write_text("\n".join(map(json.dumps, documents())))
    (tmp_path / "functions.py").write_text(FUNCTIONS)
    return tmp_path


def write_task(folder: Path, name: str, body: str, kind: str = "multiple_choice") -> str:
    head = f"task: {name}\ndataset_path: json\ndataset_kwargs: {{data_files: {{test: {folder}/data.jsonl}}}}\ntest_split: test\n"
    (folder / f"{name}.yaml").write_text(f"{head}output_type: {kind}\n{body}")
    return str(folder / f"{name}.yaml")


def answers(items: Any) -> list[int]:
    return [item.answer_index for item in items]


def test_options_of_unlike_number_and_numeric_labels(folder: Path) -> None:
    """As ARC has them: texts, answers and numbers of options are those of the documents, the harness's words around them are gone."""
    loaded = load_lm_eval(write_task(folder, "local_arc", ARC + ACC))
    wanted = documents()
    assert loaded.name == "lm-eval:local_arc" and str(folder) not in loaded.revision
    assert [item.question for item in loaded.items] == [one["question"] for one in wanted]
    assert [list(item.choices.values()) for item in loaded.items] == [one["choices"]["text"] for one in wanted]
    assert answers(loaded.items) == [one["index"] for one in wanted]
    assert isinstance(loaded.items[0], Item) and {len(item.choices) for item in loaded.items} == {3, 4, 5}


def test_ten_options_that_the_prompt_shows(folder: Path) -> None:
    """As in MMLU-Pro: the choices are letters, so the options are the texts of the document that the prompt shows."""
    loaded = load_lm_eval(write_task(folder, "local_pro", LETTERS + ACC))
    assert [list(item.choices.values()) for item in loaded.items] == [one["ten"] for one in documents()]
    assert answers(loaded.items) == [one["tenth"] for one in documents()]
    assert [item.question for item in loaded.items] == [one["question"] for one in documents()]


def test_a_target_that_is_the_text_of_a_choice(folder: Path) -> None:
    """The right option is the one with this text; mutual information and a usual function of its own change nothing."""
    body = ARC.replace(INDEX, "word") + "metric_list: [{metric: acc}, {metric: acc_mutual_info}]\n"
    loaded = load_lm_eval(write_task(folder, "local_word", body))
    assert [list(item.choices.values())[item.answer_index] for item in loaded.items] == [one["word"] for one in documents()]
    own = load_lm_eval(write_task(folder, "local_own", ARC + "process_results: !function functions.as_usual\n" + ACC))
    assert answers(own.items) == [one["index"] for one in documents()]


def test_tasks_of_a_group_are_subjects(folder: Path) -> None:
    """A group is one task whose subjects are its tasks, each with all its documents."""
    for name in ("local_law", "local_art"):
        write_task(folder, name, ARC + ACC)
    group = folder / "local_all.yaml"
    group.write_text("group: local_all\ntask: [local_law, local_art]\n")
    loaded = load_lm_eval(str(group))
    assert loaded.name == "lm-eval:local_all" and [item.subject for item in loaded.items] == ["local_law"] * N + ["local_art"] * N
    assert answers(loaded.items) == [one["index"] for one in documents()] * 2 and len({item.id for item in loaded.items}) == 2 * N
    group.write_text("dataset_path: json\n")
    with pytest.raises(UsageError, match="has no line 'task: NAME'"):
        load_lm_eval(str(group))


@pytest.mark.parametrize(
    ("name", "body", "kind", "said"),
    [
        ("gen", 'doc_to_text: question\ndoc_to_target: word\n', "generate_until", "is of type generate_until, where the model writes text"),
        ("wino", WINO + ACC, "multiple_choice", "has its choices in the contexts"),
        ("many", ARC.replace(INDEX, "several") + ACC, "multiple_choice", "2 right answers"),
        ("none", ARC.replace(INDEX, "question") + ACC, "multiple_choice", "is none of its choices"),
        ("beyond", ARC.replace(INDEX, "unknown") + ACC, "multiple_choice", "-1 is no index of its 3 choices"),
        ("mc2", ARC + "process_results: !function functions.share_of_right\n" + ACC, "multiple_choice", "counts 0.5 right"),
        ("bare", LETTERS.replace("{{ten[3]}}", "?") + ACC, "multiple_choice", "they cannot be read"),
    ],
)  # fmt: skip
def test_other_tasks_are_refused_by_name(folder: Path, name: str, body: str, kind: str, said: str) -> None:
    """What is not one question with one right option is a sentence with the task's name."""
    with pytest.raises((UsageError, ItemError), match=said) as caught:
        load_lm_eval(write_task(folder, f"local_{name}", body, kind))
    assert f"local_{name}" in str(caught.value)


@pytest.mark.slow
def test_an_unknown_name_is_refused() -> None:
    """The sentence has the names that are most alike."""
    with pytest.raises(UsageError, match=r"has no task 'arc_eazy'; alike: .*arc_easy"):
        load_lm_eval("arc_eazy")


def test_what_cannot_be_had_is_a_sentence(folder: Path) -> None:
    """A file that is missing, and data that are."""
    with pytest.raises(UsageError, match="there is no such file"):
        load_lm_eval(str(folder / "nothing.yaml"))
    task = write_task(folder, "local_gone", ARC + ACC)
    (folder / "data.jsonl").unlink()
    with pytest.raises(HedgemarkError, match="cannot load task 'local_gone': FileNotFoundError"):
        load_lm_eval(task)


def test_a_run_of_a_task(folder: Path) -> None:
    """`produce` asks it like any other task; the run is named by the task, not by the file."""
    task = write_task(folder, "local_arc", ARC + ACC)
    done = CliRunner().invoke(main, ["--model", "ref-s", "--task", f"lm-eval:{task}", "--limit", "4", "--store", str(folder / "store")])
    assert done.exit_code == 0, done.output
    assert "~lm-eval:local_arc~base" in done.stdout
