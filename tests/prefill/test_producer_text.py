"""`produce --text`: what a model makes of a text beside the dense model, against the definition written out."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import producer.engine.text_fidelity as engine
from producer.cli.main import main
from producer.engine.text_fidelity import Window, Windows, compare_texts, cut_windows, read_text
from producer.models.find import find_model
from producer.models.load import load_model
from producer.request.text_source import load_text
from schemas.errors import HedgemarkError, UsageError
from store import open_reader

pytestmark = pytest.mark.producer


def windows_of(windows: list[Window], counts: list[int]) -> Windows:
    return Windows(tuple(windows), tuple(counts), "", 64)


def naive(dense: Any, other: Any, windows: Windows) -> tuple[list[float], list[float], list[bool]]:
    """Log-probability, KL and equality of the top token at every told token, one at a time, over the whole vocabulary in float64."""
    import torch

    logprob, kl, same = [], [], []
    for window in windows.windows:
        ids = torch.tensor([window.tokens])
        with torch.no_grad():
            before, after = (model(input_ids=ids).logits[0].double().log_softmax(-1).numpy() for model in (dense, other))
        for place in range(len(window.tokens) - window.n_targets - 1, len(window.tokens) - 1):
            p, q = before[place], after[place]
            logprob.append(float(q[window.tokens[place + 1]]))
            kl.append(float(np.sum(np.exp(p) * (p - q))))
            same.append(int(p.argmax()) == int(q.argmax()))
    return logprob, kl, same


@pytest.mark.parametrize("rows", [7, 16384])
def test_kl_is_the_definition(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Log-probability, KL and top token are those of a loop in float64, whatever part of the vocabulary is multiplied at a time."""
    import torch

    monkeypatch.setattr(engine, "ROWS", rows)
    monkeypatch.setattr(engine, "TOKENS_AT_ONCE", 5)
    files = find_model("ref-s")
    dense, other = (load_model(files, "float32", "cpu") for _ in range(2))
    rng = np.random.default_rng(0)
    vocabulary = dense.config.vocab_size
    ids = [rng.integers(0, vocabulary, n).tolist() for n in (11, 23, 2)]
    cut, counts = cut_windows(ids, [1], 9)
    windows = windows_of(list(cut), list(counts))
    own = read_text(dense, windows, "cpu", "float32")
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    found = compare_texts(own, read_text(other, windows, "cpu", "float32"), windows, "cpu")
    logprob, kl, same = naive(dense, other, windows)
    assert found.offsets.tolist() == [0, 11, 34, 36] and len(kl) == 36
    np.testing.assert_allclose(found.kl, kl, rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found.logprob, logprob, rtol=1e-5, atol=1e-5)
    assert found.same_top.tolist() == same and max(kl) > 1e-3
    itself = compare_texts(own, own, windows, "cpu")
    assert itself.kl.max() == 0 and itself.same_top.all()


def test_a_model_with_logits_that_are_not_finite_is_refused() -> None:
    """NaN in a head ends the command; nothing is stored as if it were a number."""
    import torch

    files = find_model("ref-s")
    model = load_model(files, "float32", "cpu")
    windows = windows_of([Window((1, 2, 3), 2)], [2])
    own = read_text(model, windows, "cpu", "float32")
    with torch.inference_mode():
        own.head.weight[0] = float("nan")
    with pytest.raises(HedgemarkError, match="not finite"):
        compare_texts(own, own, windows, "cpu")


def test_windows_tell_every_token_but_the_first() -> None:
    """With a first token of the tokenizer every token of a document is told, without one all but the first of each window."""
    assert cut_windows([[5, 6, 7]], [1], 3) == ((Window((1, 5, 6), 2), Window((1, 7), 1)), (3,))
    assert cut_windows([[5, 6, 7], [8]], [], 2) == ((Window((5, 6), 1),), (1, 0))


def test_texts_are_documents(tmp_path: Path) -> None:
    """Files are cut at two empty lines or a form feed, JSON lines at their lines; what has no text is refused."""
    (tmp_path / "a.txt").write_text("one\n\ntwo\n\n\nthree\f four\r\n \n\n")
    assert [part.strip() for part in load_text(str(tmp_path / "a.txt")).documents] == ["one\n\ntwo", "three", "four"]
    (tmp_path / "b.jsonl").write_text('{"text": "one"}\n\n{"text": "two\\n\\n\\nlines"}\n')
    assert load_text(str(tmp_path / "b.jsonl")).documents == ("one", "two\n\n\nlines")
    for name, content in (("c.txt", " \n\n\n"), ("d.jsonl", '{"txt": 1}'), ("e.jsonl", "[1]"), ("f.jsonl", '{"text": 3}')):
        (tmp_path / name).write_text(content)
        with pytest.raises(UsageError):
            load_text(str(tmp_path / name))
    with pytest.raises(UsageError, match="neither one of wikitext2"):
        load_text("wikitext3")


def test_a_text_is_read_beside_the_dense_model(tmp_path: Path) -> None:
    """One command stores the text runs of the dense and the compressed model, whose KL is above 0; a second time they are found."""
    text = tmp_path / "story.txt"
    text.write_text("\n\n\n".join(f"Which urn gave {' '.join(['red', 'blue'] * n)} ?" for n in range(2, 8)))
    store = str(tmp_path / "store")
    arguments = ["--model", "ref-s", "--method", "dense", "--method", "rtn", "--level", "w3a16-g32", "--text", str(text), "--store", store]
    first = CliRunner().invoke(main, arguments)
    assert first.exit_code == 0, first.output
    assert len(first.stdout.splitlines()) == 2
    again = CliRunner().invoke(main, arguments)
    assert again.exit_code == 0 and again.stdout == "" and "2 already stored" in again.stderr
    reader = open_reader(store)
    dense, rtn = (reader.run(row["name"]).tokens for row in sorted(reader.catalog.to_dicts(), key=lambda row: row["method"]))
    assert dense is not None and rtn is not None and len(dense.offsets) == 7
    assert dense.kl.max() == 0 and rtn.kl.mean() > 1e-4 and (dense.logprob != rtn.logprob).any()
    dry = CliRunner().invoke(main, [*arguments, "--dry-run"])
    assert dry.exit_code == 0 and "text:story" in dry.stdout and "2 runs, 0 to run" in dry.stdout


def test_text_that_compresses_the_model_is_refused(tmp_path: Path) -> None:
    """A text that is also the compression data would show the model at its best, and is refused."""
    text = tmp_path / "story.txt"
    text.write_text("\n\n\n".join(" ".join(["Which urn gave red blue ?"] * 400) for _ in range(2)))
    arguments = ["--model", "ref-s", "--method", "wanda", "--level", "0.5", "--text", str(text), "--store", str(tmp_path / "store")]
    result = CliRunner().invoke(main, [*arguments, "--compression-data", f"{text}:4x64"])
    assert result.exit_code == 2 and "contain document 0" in result.stderr, result.output


def test_a_checkpoint_has_no_dense_model_to_be_compared_with(tmp_path: Path) -> None:
    """Read beside itself, a checkpoint would have a KL of 0 at every token, as if its compression had changed nothing."""
    arguments = ["--model", "ref-s", "--method", "checkpoint", "--text", "embedded", "--store", str(tmp_path / "store")]
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 2 and "a checkpoint has none" in result.stderr, result.output
    assert not (tmp_path / "store").exists()


def test_a_model_that_only_reads_a_text_is_not_saved(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A saved model is admitted by its answers to questions: without any, `--models` says so and goes on, and `--save` is refused."""
    text = tmp_path / "story.txt"
    text.write_text("\n\n\n".join(f"Which urn gave {' '.join(['red', 'blue'] * n)} ?" for n in (4, 8)))
    arguments = ["--model", "ref-s", "--method", "rtn", "--level", "w4a16-g32", "--text", str(text), "--store", str(tmp_path / "store")]
    refused = CliRunner().invoke(main, [*arguments, "--save", str(tmp_path / "saved")])
    assert refused.exit_code == 2 and "name some with --task" in refused.stderr, refused.output
    made = CliRunner().invoke(main, [*arguments, "--models", str(tmp_path / "kept")])
    assert made.exit_code == 0 and not (tmp_path / "kept").exists(), made.output
    assert "ref-s by rtn is not kept among the saved models: no question is asked of it" in caplog.messages
