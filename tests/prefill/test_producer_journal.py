"""Answers kept for a run that was cut off: only the rest is asked, and nothing of another model, server or file comes in."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from fake_servers import Fake, serving

from producer.cli.main import main
from producer.machine.journal import Journal, question_id
from producer.served import client, questions
from producer.served.forms import Reply
from schemas.run import Run
from store import open_reader
from store.backend.user_cache import KEPT_DAYS, cache_folder

pytestmark = pytest.mark.producer
LIMIT = 40


@pytest.fixture(autouse=True)
def small_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_PAUSE", 0.001)
    monkeypatch.setattr(questions, "AT_ONCE_PER_THREAD", 5)


def command(url: str, folder: Path, *more: str) -> list[str]:
    asked = ["--backend", "server", "--url", url, "--tokenizer", "ref-m", "--task", "urn", "--limit", str(LIMIT), "--concurrency", "1"]
    return [*asked, "--store", str(folder / "store"), *more]


def asked(url: str, folder: Path, *more: str) -> Result:
    return CliRunner().invoke(main, command(url, folder, *more))


def run_in(folder: Path) -> Run:
    reader = open_reader(str(folder / "store"))
    (name,) = reader.catalog["name"].to_list()
    return reader.run(name)


def prompts_asked(fake: Fake) -> list[tuple[int, ...]]:
    """Return the prompts of the task that a server was asked, in order; the canaries are shorter."""
    prompts = [tuple(body["prompt"]) for path, body in fake.asked if path == "/v1/completions"]
    return [prompt for prompt in prompts if len(prompt) > 60]


def journals() -> list[Path]:
    return sorted(cache_folder("journal").glob("*/*"))


def breaks_after(number: int) -> Any:
    """Let a server fail for good after so many requests."""
    return lambda path, body, count: (500, {}, b"out of memory") if count > number else None


@pytest.fixture
def undisturbed(tmp_path: Path) -> Run:
    with serving(Fake("vllm")) as url:
        assert asked(url, tmp_path / "undisturbed").exit_code == 0
    return run_in(tmp_path / "undisturbed")


def test_a_run_whose_server_died_goes_on(tmp_path: Path, undisturbed: Run, caplog: pytest.LogCaptureFixture) -> None:
    """The second command asks only the rest, says so, stores the same run, and leaves no journal."""
    fake = Fake("vllm", fail=breaks_after(60))
    with serving(fake) as url:
        broken = asked(url, tmp_path)
        assert broken.exit_code == 5 and "answers 500" in broken.stderr
        kept, before = len(journals()), len(set(prompts_asked(fake)))
        fake.fail, fake.asked = (lambda *_: None), []
        again = asked(url, tmp_path)
    assert again.exit_code == 0, again.output
    assert kept == 1 and not journals()
    rest = len(prompts_asked(fake))
    assert f"{LIMIT} items: {LIMIT - rest} found, {rest} asked" in caplog.messages
    assert LIMIT - before <= rest <= LIMIT - before + 5 < LIMIT
    run = run_in(tmp_path)
    np.testing.assert_array_equal(run.logits, undisturbed.logits)
    np.testing.assert_array_equal(run.top_token, undisturbed.top_token)
    assert any(note.startswith(f"{LIMIT - rest} of {LIMIT} answers") for note in run.env.notes)


def test_fresh_asks_everything(tmp_path: Path) -> None:
    """Answers of the command that was cut off are not taken."""
    fake = Fake("vllm", fail=breaks_after(60))
    with serving(fake) as url:
        asked(url, tmp_path)
        fake.fail, fake.asked = (lambda *_: None), []
        result = asked(url, tmp_path, "--fresh")
    assert result.exit_code == 0, result.output
    assert len(prompts_asked(fake)) == LIMIT


@pytest.mark.parametrize("change", ["weights", "version", "name", "level"])
def test_answers_of_another_model_are_not_taken(change: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Other weights under the same name show in the canaries; all else is part of who answers. Every item is asked again."""
    fake = Fake("vllm", fail=breaks_after(60))
    with serving(fake) as url:
        asked(url, tmp_path)
        assert journals()
        fake.fail, fake.asked = (lambda *_: None), []
        fake.seed = 1 if change == "weights" else 0
        fake.version = "2.0" if change == "version" else "1.0"
        fake.name = "other" if change == "name" else "served"
        result = asked(url, tmp_path, *(["--level", "Q4_K_M"] if change == "level" else []))
    assert result.exit_code == 0, result.output
    assert len(prompts_asked(fake)) == LIMIT
    assert ("answers that an earlier command did not store are left out" in caplog.text) == (change == "weights")


def test_a_model_exchanged_in_mid_run_leaves_nothing_of_itself(tmp_path: Path, undisturbed: Run) -> None:
    """What the other model answered before it was noticed is not in the journal; the first model's answers are, and go on."""
    fake = Fake("vllm")

    def exchange(path: str, body: Any, count: int) -> None:
        fake.seed = int(count > 50)

    fake.fail = exchange
    with serving(fake) as url:
        assert "another model answers" in asked(url, tmp_path).stderr
        fake.fail, fake.seed, fake.asked = (lambda *_: None), 0, []
        assert asked(url, tmp_path).exit_code == 0
    assert 0 < len(prompts_asked(fake)) < LIMIT
    np.testing.assert_array_equal(run_in(tmp_path).logits, undisturbed.logits)


@pytest.mark.parametrize("damage", ["cut off", "one bit", "another file's name", "glued"])
def test_a_damaged_record_is_asked_again(damage: str, tmp_path: Path, undisturbed: Run) -> None:
    """A record that was cut off or changed costs its question; a file under another name costs all of its."""
    fake = Fake("vllm", fail=breaks_after(60))
    with serving(fake) as url:
        asked(url, tmp_path)
        (path,) = journals()
        whole = path.read_bytes()
        if damage == "cut off":
            path.write_bytes(whole[:-20])
        elif damage == "one bit":
            place = whole.rindex(b"-")
            path.write_bytes(whole[:place] + b" " + whole[place + 1 :])
        elif damage == "glued":
            path.write_bytes(whole + b"[1, 2\n[\n\xff\n[[[]]]\n" + b"[" * 100_000)
        else:
            path.rename(path.with_name(f"{'0' * 32}.answers"))
        fake.fail, fake.asked = (lambda *_: None), []
        assert asked(url, tmp_path).exit_code == 0
    np.testing.assert_array_equal(run_in(tmp_path).logits, undisturbed.logits)
    rest = len(prompts_asked(fake))
    assert rest == LIMIT if damage == "another file's name" else rest < LIMIT


def test_only_the_options_are_kept() -> None:
    """A record of 2,000 tokens takes 57 kB, one of six options 300 bytes."""
    reply = Reply({token: -1.0 - token for token in range(100)}, top=0, bound=-101.0, listed=100)
    assert Reply.from_json(reply.of([3, 5]).as_json()) == Reply({3: -4.0, 5: -6.0}, top=0, bound=-101.0, listed=2)


def test_an_answer_with_a_bound_is_asked_again(tmp_path: Path) -> None:
    """A server that listed too few tokens may list more the next time: nothing it left out is kept."""
    fake = Fake("other", cap=5)
    with serving(fake) as url:
        assert "too few tokens" in asked(url, tmp_path).stderr
        fake.cap = 256
        assert asked(url, tmp_path).exit_code == 0
    assert np.isfinite(run_in(tmp_path).logits).all()


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGKILL")
def test_a_killed_command_goes_on(tmp_path: Path, undisturbed: Run) -> None:
    """Kill -9 at three moments of one run: the last command stores the undisturbed run, and few questions were asked twice."""
    fake = Fake("vllm")
    code = "from producer.served import questions; questions.AT_ONCE_PER_THREAD = 4; from producer.cli.main import main; main()"
    with serving(fake) as url:
        for _ in range(3):
            before = len(prompts_asked(fake))
            process = subprocess.Popen([sys.executable, "-c", code, *command(url, tmp_path)], stderr=subprocess.DEVNULL)
            while process.poll() is None and len(prompts_asked(fake)) < before + 9:
                time.sleep(0.005)
            process.send_signal(signal.SIGKILL)
            process.wait()
        assert asked(url, tmp_path).exit_code == 0
    np.testing.assert_array_equal(run_in(tmp_path).logits, undisturbed.logits)
    assert len(set(prompts_asked(fake))) == LIMIT
    assert len(prompts_asked(fake)) <= LIMIT + 3 * 8
    assert not journals()


def journal(answerer: str = "me", circumstances: Any = 1) -> Journal:
    return Journal(answerer, circumstances, lambda before: bool(before == circumstances))


def found(by: Journal, names: str = "abcd") -> dict[str, Any]:
    """Return the answers that a journal has to some questions."""
    return {name: answer for name in names if (answer := by.answer(question_id(name))) is not None}


def test_a_journal_keeps_answers_by_answerer_and_circumstances() -> None:
    """Two processes write files of their own; a third reads both, and removes what it took."""
    one, two, other = journal(), journal(), journal(circumstances=2)
    one.add({question_id("a"): 0.1})
    one.add({question_id("b"): [1.5, None]})
    two.add({question_id("c"): "x"})
    other.add({question_id("a"): 9})
    third = journal()
    assert found(third) == {"a": 0.1, "b": [1.5, None], "c": "x"}
    assert third.left_out == 1
    assert not found(journal("you"))
    third.remove()
    assert len(journals()) == 1 and not found(journal())
    one.add({question_id("d"): 1})  # its file was deleted: it begins anew
    assert found(journal()) == {"d": 1}


def test_answers_to_what_was_not_asked_stay() -> None:
    """A file is deleted only if everything in it was asked for: another process may be at work on the rest."""
    one = journal()
    one.add({question_id("a"): 1, question_id("b"): 2})
    other = journal()
    assert found(other, "a") == {"a": 1}
    other.remove()
    last = journal()
    assert found(last) == {"a": 1, "b": 2}
    last.remove()
    assert not journals()


def test_a_journal_that_nobody_came_back_for_is_deleted() -> None:
    """A month later the answers are gone."""
    journal().add({question_id("a"): 1})
    (path,) = journals()
    past = time.time() - (KEPT_DAYS + 1) * 86400
    os.utime(path, (past, past))
    assert not found(journal()) and not journals()


def test_a_journal_that_cannot_be_written_costs_a_warning(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A full disk must not end a run."""
    kept = journal()

    def full(_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    kept.add({question_id("a"): 1})
    assert "No space left" in caplog.text
