"""The importer of lm-evaluation-harness samples, on small samples written by hand; their own acc is the truth."""

import gzip
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from schemas.errors import UsageError
from schemas.itemset import ItemSet
from schemas.run import Run
from store.cli.main import main
from store.importers.importer import Description
from store.importers.lm_eval import read_lm_eval

NAMED = Description(model="org/model", task="arc")


def sample(doc_id: int, pairs: list[tuple[str, str]], likelihoods: list[float], target: object, **results: Any) -> dict[str, Any]:
    """Return a row as the harness writes it: target as text, arguments by name, log-likelihoods as text."""
    arguments = {f"gen_args_{k}": {"arg_0": context, "arg_1": text} for k, (context, text) in enumerate(pairs)}
    responses = [[str(value), "False"] for value in likelihoods]
    row = {"doc_id": doc_id, "doc": {}, "target": str(target), "arguments": arguments, "resps": [[one] for one in responses]}
    return row | {"filtered_resps": responses, "filter": "none", "metrics": [*results]} | results


def write(folder: Path, rows: list[dict[str, Any]], name: str = "samples_arc.jsonl") -> Path:
    path = folder / name
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
    return path


def read(folder: Path, rows: list[dict[str, Any]], **options: Any) -> tuple[ItemSet, Run]:
    [pair] = read_lm_eval([write(folder, rows)], NAMED, **options)
    return pair


def accuracy(items: ItemSet, run: Run) -> float:
    return float(np.mean(np.nanargmax(run.logits, axis=1) == items.answer))


def one_context(i: int, choices: list[str], right: int, gold: int, target: object = None, **results: Any) -> dict[str, Any]:
    """Return a sample whose likeliest choice is `right`, on the context `Question i`."""
    likelihoods = [-4.0 - 0.25 * k for k in range(len(choices))]
    likelihoods[right] = -1.0
    pairs = [(f"Question {i}", f" {choice}") for choice in choices]
    return sample(i, pairs, likelihoods, gold if target is None else target, **({"acc": float(right == gold)} | results))


def test_missing_documents_are_said_and_stored(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of two processes one did not log: every second document is missing. A file of the first ones is whole."""
    rows = [one_context(i, ["red", "blue", "green"], i % 3, i % 2) for i in range(12)]
    assert read(tmp_path, rows)[1].env.notes == ()
    assert "missing" not in caplog.text
    said = "samples_arc.jsonl: 5 of 11 documents are missing, the first of doc_id 1; figures are of those logged"
    assert read(tmp_path, rows[::2])[1].env.notes == (said,)
    assert said in caplog.messages


@pytest.mark.parametrize(("targets", "words"), [("0123", "an index from 0"), (["red", "blue"], "the text or letter of a choice")])
def test_targets_without_a_result_to_check_them_are_said(
    targets: list[str], words: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Indices from 1 among choices that the last is never right of look like indices from 0: nothing in the file tells."""
    rows = [{**one_context(i, ["red", "blue", "green", "black"], 0, 0, target), "acc": None} for i, target in enumerate(targets)]
    read(tmp_path, rows)
    assert f"no sample has a result such as acc that would show whether its target is read rightly; it is taken as {words}" in caplog.text
    caplog.clear()
    read(tmp_path, [*rows[:-1], {**rows[-1], "acc": 0.0}])
    assert "no sample has a result" not in caplog.text


def test_responses_that_no_filter_took_out_of_their_lists_are_read(tmp_path: Path) -> None:
    """[[log-likelihood, greedy]] is the response itself, as `resps` holds it."""
    rows = [one_context(i, ["red", "blue"], i % 2, 0) for i in range(4)]
    _, plain = read(tmp_path, rows)
    _, nested = read(tmp_path, [{**row, "filtered_resps": [[one] for one in row["filtered_resps"]]} for row in rows])
    np.testing.assert_array_equal(plain.logits, nested.logits)


def test_runs_of_one_key_are_not_written_over_each_other(tmp_path: Path) -> None:
    """The samples of two models, or of two days, in one folder: with --replace the second took the place of the first."""
    rows = [one_context(i, ["red", "blue"], i % 2, 0) for i in range(4)]
    days = [write(tmp_path, rows, f"samples_arc_2026-01-0{day}T03-04-05.123456.jsonl") for day in (1, 2)]
    asked = ["import", "lm-eval", "--store", str(tmp_path / "s"), "--model", "m", "--replace", *map(str, days)]
    result = CliRunner().invoke(main, asked)
    assert result.exit_code == 2
    assert re.search(r"the input holds run m~dense~arc~imported\.\w+ 2 times; import runs of several models", result.output)
    assert not (tmp_path / "s").exists()


SAMPLE = {
    "doc_id": 0,
    "doc": {"question": "2 + 2?"},
    "target": "1",
    "arguments": {f"gen_args_{i}": {"arg_0": "Q: 2 + 2?\nA:", "arg_1": f" {text}"} for i, text in enumerate(("three", "four"))},
    "resps": [[["-3.5", "False"]], [["-0.5", "True"]]],
    "filtered_resps": [["-3.5", "False"], ["-0.5", "True"]],
}
OLDER = {"arguments": [["Q", " three"], ["Q", " four"]], "filtered_resps": [[-3.5, False], [-0.5, True]]}


@pytest.mark.parametrize("changes", [{}, {"target": 1}, {"target": "four"}, {"target": "B"}, {"target": "[1]"}, {"target": "1.0"}, OLDER])
def test_lm_eval_samples_are_imported(tmp_path, changes):
    """Samples of old and new versions of the harness become items and log-likelihoods."""
    path = tmp_path / "samples_arc_easy_2026-01-02T03-04-05.678.jsonl"
    path.write_text("\n".join(json.dumps({**SAMPLE, **changes, "doc_id": i}) for i in range(3)))
    [(items, run)] = read_lm_eval([path], Description(model="org/model"))
    assert run.key.task == "arc_easy" and run.logits.tolist() == [[-3.5, -0.5]] * 3 and items.answer.tolist() == [1, 1, 1]
    assert run.env.origin.startswith("lm-eval samples_arc_easy")


NOT_SAMPLES = [
    ({"filtered_resps": ["text"]}, "line 1 is not a multiple-choice sample"),
    ({"filtered_resps": [["3.5", "False"], ["0.5", "True"]]}, "a response of 3.5 is no log-likelihood, which is at most 0"),
    ({"arguments": []}, "line 1 is not a multiple-choice sample"),
    ({"filtered_resps": [["1", "x"]]}, "line 1 is not a multiple-choice sample"),
    ({"filtered_resps": [["-1", "x"]] * 2, "arguments": [["Q", " a"], ["Q", {"until": []}]]}, "not a context and a continuation"),
    ({"arguments": [["Q", " a"], ["Q", " a"]]}, "same context and continuation"),
    ({"target": "seven"}, "'seven' is none of its 2 choices"),
    ({"target": 5}, "'5' is none of its 2 choices"),
    ({"target": -1}, "'-1' is none of its 2 choices"),
    ({"target": "[0, 1]"}, "several right answers"),
    ({"acc": 0.0}, "its acc is 1, but it says 0"),
    ({"acc": 0.37}, "acc is 0.37, not 0 or 1: several answers are right"),
    ({"acc_norm": 0.0}, "its acc_norm is 1, but it says 0"),
    ({"f1": [0, 1]}, "its f1 counts choice 0"),
    ({"mcc": [0, 1]}, "its mcc counts choice 0"),
    ({"brier_score": [0, [0.2, 0.8]]}, "its brier_score counts choice 0"),
    ({"likelihood": [0, [0.2, 0.8]]}, "its likelihood counts choice 0"),
    ({"filtered_resps": [["-1", "x"]], "arguments": [["Q", " a"]]}, "1 choices; expected 2 to 26"),
    ({"filtered_resps": [["-1", "x"]] * 27, "arguments": [["Q", f" {k}"] for k in range(27)]}, "27 choices; expected 2 to 26"),
]


@pytest.mark.parametrize(("changes", "words"), NOT_SAMPLES)
def test_samples_of_other_kinds_are_refused(tmp_path, changes, words):
    """A generation task, an unknown target, several answers, a single choice, or a result that disagrees is named with its line."""
    path = tmp_path / "samples_gsm8k.jsonl"
    path.write_text(json.dumps({**SAMPLE, **changes}))
    with pytest.raises(UsageError, match=r"samples_gsm8k\.jsonl line 1") as caught:
        list(read_lm_eval([path], NAMED))
    assert words in str(caught.value)


def test_the_first_sample_that_disagrees_is_named(tmp_path):
    """One wrong acc among many stops the import, with line and doc_id, and no store is made."""
    rows = [one_context(i, ["red", "blue", "green"], i % 3, i % 2) for i in range(30)]
    rows[17]["acc"] = 1 - rows[17]["acc"]
    path = write(tmp_path, rows)
    result = CliRunner().invoke(main, ["import", "lm-eval", "--store", str(tmp_path / "s"), "--model", "m", str(path)])
    assert result.exit_code == 2 and "line 18, doc_id 17" in result.output and not (tmp_path / "s").exists()


@pytest.mark.parametrize("choices", [["2", "3", "0", "1"], ["1", "2", "3", "4"]])
def test_a_target_of_digits_is_an_index_where_acc_says_so(tmp_path, choices):
    """Choices that are digits are not taken for the target: 90 % right stay 90 %."""
    rows = [one_context(i, choices, i % 4 if i % 10 else (i + 1) % 4, i % 4) for i in range(40)]
    assert accuracy(*read(tmp_path, rows)) == 0.9


def test_a_target_of_digits_is_a_text_where_acc_says_so(tmp_path):
    """A label read from a column of texts is the text of a choice, though it could be an index."""
    choices = ["2", "3", "0", "1"]
    rows = [one_context(i, choices, i % 3, i % 4, target=choices[i % 4]) for i in range(40)]
    items, run = read(tmp_path, rows)
    assert items.answer.tolist() == [i % 4 for i in range(40)] and accuracy(items, run) == np.mean([row["acc"] for row in rows])


def test_a_target_that_can_be_read_in_two_ways_is_refused(tmp_path):
    """Where index and text both fit every acc and differ, nobody can tell which is the answer."""
    rows = [one_context(i, ["1", "0", "2"], 2, 0, target="0") for i in range(5)]
    with pytest.raises(UsageError, match="indices or texts"):
        read(tmp_path, rows)


def test_choices_in_the_context_become_options(tmp_path):
    """WinoGrande's choices stand in the contexts; of two options acc says which is the answer, and 80 % right stay 80 %."""
    rows = []
    for i in range(40):
        gold, right = i % 2, i % 5 > 0
        likelihoods = [-5.0, -5.0]
        likelihoods[gold if right else 1 - gold] += 2
        pairs = [(f"Cup {i} fell on the vase since the {word}", " was heavy.") for word in ("cup", "vase")]
        rows.append(sample(i, pairs, likelihoods, "was heavy.", acc=float(right)))
    items, run = read(tmp_path, rows)
    assert accuracy(items, run) == 0.8 and items.answer.tolist() == [i % 2 for i in range(40)]
    text = json.loads(items.texts[3])
    assert text["question"] == "Cup 3 fell on the vase since the _ was heavy." and text["choices"] == {"A": "cup", "B": "vase"}
    del rows[7]["acc"]
    with pytest.raises(UsageError, match="doc_id 7: its choices stand in the contexts"):
        read(tmp_path, rows)


def test_three_choices_in_the_context_need_a_target(tmp_path):
    """Of three options a wrong acc leaves two that may be the answer, so the file is refused."""
    pairs = [(f"He gave it to {name}", " and left.") for name in ("Ann", "Bob", "Cid")]
    assert read(tmp_path, [sample(0, pairs, [-3.0, -1.0, -2.0], "and left.", acc=1.0)])[0].answer.tolist() == [1]
    with pytest.raises(UsageError, match="neither target nor acc"):
        read(tmp_path, [sample(0, pairs, [-3.0, -1.0, -2.0], "and left.", acc=0.0)])
    assert read(tmp_path, [sample(0, pairs, [-3.0, -1.0, -2.0], 2, acc=0.0)])[0].answer.tolist() == [2]


def test_a_document_logged_by_two_filters_is_one_item(tmp_path):
    """40 documents, logged once per filter, are 40 items; a filter that leaves no likelihoods is passed over."""
    rows = [one_context(i, ["yes", "no"], i % 3 % 2, i % 2) for i in range(40)]
    chosen = [{**row, "filter": "words", "filtered_resps": ["yes", "no"]} for row in rows]
    items, _ = read(tmp_path, [*chosen, *rows, *({**row, "filter": "second"} for row in rows)])
    assert len(items) == 40
    with pytest.raises(UsageError, match="line 1 is not a multiple-choice sample"):
        read(tmp_path, chosen)


def test_the_order_of_the_log_does_not_matter(tmp_path):
    """Processes on several GPUs log in turns: the items are the same in whatever order they stand."""
    rows = [one_context(i, ["yes", "no"], i % 2, 0) for i in range(12)]
    items, run = read(tmp_path, rows)
    turned, other = read(tmp_path, rows[1::2] + rows[::2])
    assert turned.digest == items.digest and other.logits.tolist() == run.logits.tolist() and turned.original_ids[-1] == "11"


def test_one_doc_id_with_two_contents_is_refused(tmp_path):
    """Files of two tasks or two runs joined into one are named by the doc_id that they share."""
    rows = [one_context(i, ["yes", "no"], 0, 0) for i in range(3)]
    other = {**rows[1], "filtered_resps": [["-2", "False"], ["-7", "False"]]}
    with pytest.raises(UsageError, match="lines 2 and 4 give doc_id 1 different"):
        read(tmp_path, [*rows, other])


def test_unconditional_likelihoods_are_no_options(tmp_path):
    """acc_mutual_info asks each continuation without context too: three options stay three, and either accuracy can be had."""
    rows = []
    for i in range(12):
        given, alone, gold = [-3.0, -2.0, -1.0], [-4.0 - i, -2.5, -0.5], i % 3
        gain = [a - b for a, b in zip(given, alone, strict=True)]
        pairs = [(f"Question {i}", f" {text}") for text in ("one", "two", "three")]
        pairs += [("", text) for _, text in pairs]
        own = {"acc": float(gold == 2), "acc_mutual_info": float(gold == int(np.argmax(gain)))}
        rows.append(sample(i, pairs, given + alone, gold, **own))
    items, run = read(tmp_path, rows)
    assert items.n_options.tolist() == [3] * 12 and accuracy(items, run) == np.mean([row["acc"] for row in rows])
    items, run = read(tmp_path, rows, metric="acc_mutual_info")
    assert accuracy(items, run) == np.mean([row["acc_mutual_info"] for row in rows]) == 1 / 3
    assert run.key.prompt == "imported-acc_mutual_info"


@pytest.mark.parametrize(("metric", "width"), [("acc_norm", len), ("acc_bytes", lambda text: len(text.encode()))])
def test_likelihoods_by_length_are_imported_when_asked_for(tmp_path, metric, width):
    """Per character or per byte, without the blank before the choice: the accuracy is the harness's; without acc the user must say so."""
    rng = np.random.default_rng(0)
    rows = []
    for i in range(60):
        choices = [str(text) for text in rng.permutation(["é" * 6, "abc", "seven letters", "ü" + "x" * 8])]
        likelihoods = [float(rng.normal(-1, 0.2) * width(text)) for text in choices]
        likeliest = int(np.argmax([value / width(text) for value, text in zip(likelihoods, choices, strict=True)]))
        pairs = [(f"Question {i}", f" {text}") for text in choices]
        rows.append(sample(i, pairs, likelihoods, i % 4, **{metric: float(likeliest == i % 4)}))
    items, run = read(tmp_path, rows, metric=metric)
    assert accuracy(items, run) == np.mean([row[metric] for row in rows])
    with pytest.raises(UsageError, match=f"has {metric} and no acc: say --metric {metric}"):
        read(tmp_path, rows)
    assert accuracy(*read(tmp_path, rows, metric="acc")) != accuracy(items, run)
    with pytest.raises(UsageError, match="does not hold what acc_mutual_info"):
        read(tmp_path, rows, metric="acc_mutual_info")


def test_choices_of_equal_text_are_told_apart_by_index(tmp_path):
    """A question that lists the same text twice is an item like any other, as its target is an index."""
    rows = [one_context(i, ["4", "5", "4", "6"], 2, 2, target=2) for i in range(4)]
    items, run = read(tmp_path, rows)
    assert items.answer.tolist() == [2] * 4 and accuracy(items, run) == 1


def test_files_of_one_benchmark_become_one_run_with_subjects(tmp_path):
    """Three files with one --task are one run; each item's subject is its file's own task, and its id tells the files apart."""
    paths = []
    for subject, n in (("anatomy", 3), ("law", 4), ("physics", 5)):
        rows = [one_context(i, ["A", "B"], i % 2, 0) for i in range(n)]
        for row in rows:
            row["arguments"]["gen_args_0"]["arg_0"] = row["arguments"]["gen_args_1"]["arg_0"] = f"{subject} {row['doc_id']}"
        paths.append(write(tmp_path, rows, f"samples_mmlu_{subject}_2026-01-02T03-04-05.123456.jsonl"))
    [(items, run)] = read_lm_eval(paths, Description(model="m", task="mmlu"))
    assert run.key.task == "mmlu" and len(items) == 12 and items.subjects == ("mmlu_anatomy", "mmlu_law", "mmlu_physics")
    assert np.bincount(items.subject).tolist() == [3, 4, 5] and json.loads(items.texts[4])["id"] == "mmlu_law/1"
    assert [run.key.task for _, run in read_lm_eval(paths, Description(model="m"))] == ["mmlu_anatomy", "mmlu_law", "mmlu_physics"]
    again = write(tmp_path, rows, "samples_mmlu_physics_2026-02-02T03-04-05.123456.jsonl")
    with pytest.raises(UsageError, match="two files hold samples of mmlu_physics"):
        list(read_lm_eval([*paths, again], Description(model="m", task="mmlu")))


def test_an_acc_that_was_never_measured_is_no_check_and_said(tmp_path, caplog):
    """Where acc is 0 in every one of many samples although targets are the likeliest choices, it is said and not used."""
    rows = [one_context(i, ["red", "blue", "green", "black"], i % 4, i % 2, acc=0.0) for i in range(40)]
    items, run = read(tmp_path, rows)
    assert accuracy(items, run) == 0.5 and "its acc is 0 in all 40 samples" in caplog.text
    with pytest.raises(UsageError, match="doc_id 0: by its target"):
        read(tmp_path, rows[:10])


@pytest.mark.parametrize("results", [{}, {"acc": 1.0}])
def test_targets_that_are_indices_or_texts_are_not_guessed(results: dict[str, Any], tmp_path: Path) -> None:
    """Choices that are digits: a target "1" is the second choice or the text 1; without a result that tells, neither is taken."""
    choices = ["1", "2", "3", "0"]
    rows = [{**one_context(i, choices, right, right, str(right + 1)), "acc": None} | results for i, right in enumerate((0, 1))]
    if results:
        items, _ = read(tmp_path, rows)
        assert items.answer.tolist() == [0, 1]
        return
    with pytest.raises(UsageError, match="indices or texts of choices, and it has no results of its own that would tell"):
        read(tmp_path, rows)


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (["1", "2"], "by its target '1' and its log-likelihoods its acc is 0, but it says 1"),  # counted from 1
        (["0", "green"], "its target 'green' is none of its 3 choices in the way of the others, such as '0'"),
        (["a", "b"], "its target 'a' is none of its 3 choices"),
        (["-100", "1"], "its target '-100' is none of its 3 choices"),
        (["[1, 0, 0]", "[0, 1, 0]"], "several right answers"),
    ],
)
def test_targets_of_other_conventions_are_refused(targets: list[str], message: str, tmp_path: Path) -> None:
    """Counted from 1, of two kinds in one file, small letters, ignored labels and one-hot lists: none is read as something else."""
    rows = [one_context(i, ["red", "green", "blue"], i, i, target, acc=1.0) for i, target in enumerate(targets)]
    with pytest.raises(UsageError, match=re.escape(message)):
        read(tmp_path, rows)


def test_a_file_without_samples_is_refused(tmp_path: Path) -> None:
    """An empty file, as a run that was stopped leaves it, is no run of no items."""
    with pytest.raises(UsageError, match=r"samples_arc\.jsonl holds no samples"):
        read(tmp_path, [])


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\u0085"])
def test_only_a_line_feed_ends_a_sample(separator: str, tmp_path: Path) -> None:
    """Python splits lines at these characters too; inside a text they are text."""
    rows = [one_context(i, [f"red{separator}wine", "green"], 0, i) for i in range(2)]
    items, _ = read(tmp_path, rows)
    assert [item.choices["A"] for item in items.items] == [f"red{separator}wine"] * 2


def test_bytes_before_and_between_lines_do_not_matter(tmp_path: Path) -> None:
    """A byte-order mark and carriage returns leave the samples as they are; a packed file is named as such."""
    path = write(tmp_path, [one_context(i, ["red", "green"], 0, i) for i in range(2)])
    [(_, plain)] = read_lm_eval([path], NAMED)
    content = path.read_bytes()
    path.write_bytes(b"\xef\xbb\xbf" + content.replace(b"\n", b"\r\n"))
    [(_, other)] = read_lm_eval([path], NAMED)
    assert other.key == plain.key
    np.testing.assert_array_equal(other.logits, plain.logits)
    for damage, message in ((gzip.compress(content), "it is packed with gzip"), (content.decode().encode("utf-16"), "it is UTF-16")):
        path.write_bytes(damage)
        with pytest.raises(UsageError, match=message):
            list(read_lm_eval([path], NAMED))
