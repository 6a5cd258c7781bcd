"""Backend `server`: each kind of server by its own form of question, and servers that fail, lie, or become another."""

import json
import math
import re
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from fake_servers import VOCABULARY, Fake, log_probs, serving

from producer.cli.main import main
from producer.models.find import find_model
from producer.models.load import load_tokenizer
from producer.served import client
from producer.served.bounds import Bounded, check_bounds
from producer.served.client import Client, ServerError, checked_url
from producer.served.forms import Asker, Reply, TopTokens
from producer.served.identity import Identity
from schemas.errors import StoreNotFoundError, UsageError
from schemas.run import Run
from store import open_reader

pytestmark = pytest.mark.producer
LIMIT = 20
FORMS = {
    "llama.cpp": "logprobs",
    "vllm": "logprob_token_ids",
    "sglang": "token_ids_logprob",
    "old vllm": "prompt_logprobs",
    "other": "logprobs",
}


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "FIRST_PAUSE", 0.001)
    monkeypatch.delenv(client.KEY_VARIABLE, raising=False)


def asked(url: str, folder: Path, *more: str) -> Result:
    common = ["--backend", "server", "--url", url, "--tokenizer", "ref-m", "--task", "urn", "--limit", str(LIMIT)]
    return CliRunner().invoke(main, [*common, "--store", str(folder / "store"), *more])


def runs(folder: Path) -> list[Run]:
    try:
        reader = open_reader(str(folder / "store"))
    except StoreNotFoundError:
        return []
    return [reader.run(name) for name in reader.catalog["name"].to_list()]


def refused(url: str, folder: Path, *more: str) -> str:
    """Ask, expect one sentence and nothing stored, and return the sentence."""
    result = asked(url, folder, *more)
    assert result.exit_code in (2, 5), result.output
    assert isinstance(result.exception, SystemExit), result.exception
    assert not runs(folder)
    said = [line for line in result.stderr.splitlines() if line.startswith("Error")]
    assert len(said) == 1
    return said[0]


def with_tokens(entries: dict[str, float]) -> dict[str, Any]:
    return {"choices": [{"logprobs": {"top_logprobs": [entries]}}]}


@pytest.mark.parametrize("kind", FORMS)
def test_each_kind_of_server_is_asked_in_its_own_form(kind: str, tmp_path: Path) -> None:
    """The probe finds the form, only token ids are sent, and what is stored is what the server's table holds."""
    fake = Fake(kind)
    with serving(fake) as url:
        result = asked(url, tmp_path)
    assert result.exit_code == 0, result.output
    (run,) = runs(tmp_path)
    bodies = [body for path, body in fake.asked if path in ("/v1/completions", "/generate")]
    prompts: list[Any] = [body.get("prompt") or body.get("input_ids") for body in bodies]
    assert all(isinstance(token, int) for prompt in prompts for token in prompt)
    prompts += [prompt[:-1] for prompt in prompts]  # what an appended option follows
    tables = {tuple(prompt): log_probs(prompt) for prompt in prompts}
    found = np.stack([table[list(run.key.option_token_ids)] for table in tables.values()])
    for row, top in zip(run.logits, run.top_token, strict=True):
        nearest = int(np.abs(found - row).max(axis=1).argmin())
        np.testing.assert_allclose(row, found[nearest], atol=1e-5)
        assert top == list(tables.values())[nearest].argmax()
    assert run.env.post_conditions["request_form"] == FORMS[kind]
    assert (run.key.method, run.key.level, run.key.backend, run.key.weights_hash) == ("checkpoint", "-", "server", "")
    np.testing.assert_array_equal(run.logsumexp, 0)


def test_a_server_with_a_cap_is_refused_where_it_leaves_options_out(tmp_path: Path) -> None:
    """With five most likely tokens of 256 the options are nearly never all there, and nothing is filled in."""
    with serving(Fake("other", cap=5)) as url:
        assert "too few tokens" in refused(url, tmp_path)


def test_a_text_that_several_tokens_share_is_no_option() -> None:
    """Where a server writes texts, an option among them is known only if its text is that of one token; a bound would be wrong."""

    class Texts(Asker):
        def completion(self, ids: Sequence[int], **fields: Any) -> dict[str, Any]:
            return {"logprobs": {"top_logprobs": [{"A": -0.1, "x": -3.0}]}}

    def asker(names: dict[str, int]) -> Asker:
        return Texts(Client("http://127.0.0.1:9"), Identity("other", "", "m", {}, None), VOCABULARY, lambda: names)

    assert TopTokens(asker({"A": 7, "x": 5})).ask([1], [7]).logprobs[7] == -0.1
    with pytest.raises(ServerError, match="that of several tokens"):
        TopTokens(asker({"x": 5})).ask([1], [7])


def test_a_server_that_takes_text_alone_is_refused(tmp_path: Path) -> None:
    """TGI refuses a prompt of token ids; the sentence names server, version and what it said."""
    with serving(Fake("tgi")) as url:
        said = refused(url, tmp_path)
    assert "(tgi 1.0) gives no log-probabilities after a prompt of token ids" in said and "untagged enum Prompt" in said


def test_an_update_of_the_weights_in_a_running_sglang_is_noticed(tmp_path: Path) -> None:
    """The server's own settings stay as they were; the version of the weights, also in every answer, does not."""
    fake = Fake("sglang")

    def update(path: str, body: Any, count: int) -> None:
        if count > 45:
            fake.weight_version = "second"

    fake.fail = update
    with serving(fake) as url:
        assert "another model answers" in refused(url, tmp_path, "--limit", "60")
        fake.fail = lambda *_: None
        assert asked(url, tmp_path).exit_code == 0
    assert runs(tmp_path)[0].key.method_settings["says"]["weight_version"] == "second"


def test_an_adapter_of_sglang_is_refused(tmp_path: Path) -> None:
    """Its own address would be answered by the model without the adapter, under the adapter's name."""
    with serving(Fake("sglang", name="tuned", parent="base")) as url:
        assert "'tuned' is an adapter of 'base'" in refused(url, tmp_path)


def test_a_server_with_another_tokenizer_is_refused(tmp_path: Path) -> None:
    """A server that has /tokenize must give the tokens that are sent; one that gives others belongs to another tokenizer."""
    tokenizer = load_tokenizer(find_model("ref-m"))
    with serving(Fake("vllm", tokenize=lambda text: tokenizer(text)["input_ids"])) as url:
        assert asked(url, tmp_path).exit_code == 0
    with serving(Fake("vllm", tokenize=lambda text: [*tokenizer(text)["input_ids"][:-1], 9])) as url:
        assert "--tokenizer must be that of the model served" in refused(url, tmp_path / "other")


def test_a_failure_in_mid_run_is_retried(tmp_path: Path) -> None:
    """429 with Retry-After, 500, half an answer and no JSON pass, and change no number."""
    kinds = [
        (429, {"retry-after": "0"}, b"slow down"),
        (500, {}, b"{}"),
        (200, {"content-length": "500"}, b'{"choices": [{"lo'),
        (200, {}, b"<html>starting</html>"),
    ]
    with serving(Fake("vllm")) as url:
        asked(url, tmp_path / "quiet")
    fail: Any = lambda path, body, count: kinds[count % 4] if path == "/v1/completions" and count % 7 == 0 else None  # noqa: E731
    with serving(Fake("vllm", fail=fail)) as url:
        result = asked(url, tmp_path / "noisy")
    assert result.exit_code == 0, result.output
    (quiet,), (noisy,) = runs(tmp_path / "quiet"), runs(tmp_path / "noisy")
    np.testing.assert_array_equal(quiet.logits, noisy.logits)
    assert quiet.key.digest == noisy.key.digest


def test_a_server_that_breaks_for_good_stores_nothing_and_the_same_command_goes_on(tmp_path: Path) -> None:
    """The sentence names the status; the run is made when the server works again, and then it is not made twice."""
    broken = threading.Event()
    broken.set()
    fail: Any = lambda path, body, count: (500, {}, b"out of memory") if broken.is_set() and count > 25 else None  # noqa: E731
    with serving(Fake("vllm", fail=fail)) as url:
        assert "answers 500 (out of memory)" in refused(url, tmp_path)
        broken.clear()
        assert asked(url, tmp_path).exit_code == 0
        again = asked(url, tmp_path)
    assert len(runs(tmp_path)) == 1
    assert "0 runs written, 1 already stored" in again.stderr


def test_a_server_that_hangs_is_given_up(tmp_path: Path) -> None:
    """Two unanswered requests are enough."""
    free = threading.Event()

    def hang(path: str, body: Any, count: int) -> None:
        if path == "/v1/completions" and count > 20:
            free.wait(20)

    with serving(Fake("vllm", fail=hang)) as url:
        try:
            assert "does not answer within 0.3 s" in refused(url, tmp_path, "--request-timeout", "0.3")
        finally:
            free.set()


def test_a_long_wait_is_told_instead_of_waited(tmp_path: Path) -> None:
    """A server that asks for an hour gets no silent hour."""
    with serving(Fake("vllm", fail=lambda *_: (429, {"retry-after": "3600"}, b""))) as url:
        assert "asks to wait 3,600 s" in refused(url, tmp_path)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -9999.0, 0.5, None, "-1", True])
def test_what_is_no_log_probability_is_refused(value: Any, tmp_path: Path) -> None:
    """NaN, infinities, vLLM's stand-in for them, raw logits and words are not stored."""

    def change(answer: Any) -> Any:
        for choice in answer.get("choices", []):
            if choice["logprobs"]:
                entries = choice["logprobs"]["top_logprobs"][0]
                entries[list(entries)[1]] = value
        return answer

    with serving(Fake("vllm", change=change)) as url:
        assert "log-probability was expected" in refused(url, tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda answer: answer | {"usage": {"prompt_tokens": 3}}, "read 3 tokens"),
        (lambda answer: answer | {"choices": answer["choices"] * 2}, "exactly one choice"),
        (lambda answer: [], "exactly one choice"),
        (lambda answer: answer | with_tokens({"token_id:300": -1.0}), "token 300"),
        (lambda answer: answer | with_tokens({f"token_id:{i}": -0.1 for i in range(30)}), "probability together"),
        (lambda answer: answer | {"choices": [{"logprobs": None}]}, "gives no log-probabilities"),
    ],
    ids=["other tokens", "two choices", "a list", "foreign token", "too much mass", "no log-probabilities"],
)
def test_a_wrong_answer_is_refused(change: Any, said: str, tmp_path: Path) -> None:
    """Token counts, ids and probabilities are held against what was sent."""
    with serving(Fake("vllm", change=lambda answer: change(answer) if "choices" in answer else answer)) as url:
        assert said in refused(url, tmp_path)


@pytest.mark.parametrize("kind", ["vllm", "sglang"])
def test_an_option_that_was_asked_for_and_is_not_there_has_no_bound(kind: str, tmp_path: Path) -> None:
    """Chosen tokens are no list of the most likely ones, so that the smallest of them bounds nothing; in mid-run it ends the run."""
    fake = Fake(kind)

    def change(answer: Any) -> Any:
        if fake.count > 40 and (choices := answer.get("choices")):
            entries = choices[0]["logprobs"]["top_logprobs"][0]
            entries.pop(list(entries)[-1])
        if fake.count > 40 and "meta_info" in answer:
            answer["meta_info"]["output_token_ids_logprobs"][0].pop()
        return answer

    fake.change = change
    with serving(fake) as url:
        assert re.search("lacks option|leaves options out", refused(url, tmp_path, "--limit", "60"))


@pytest.mark.parametrize("what", ["weights", "name", "version"])
def test_another_model_in_mid_run_is_detected(what: str, tmp_path: Path) -> None:
    """Other weights under the same name show in the canaries, all else in what the server says; the mixed run is not stored."""
    fake = Fake("vllm")

    def restart(path: str, body: Any, count: int) -> None:
        if count > 45:
            fake.seed, fake.name, fake.version = (
                1 if what == "weights" else 0,
                "other" if what == "name" else "served",
                "2.0" if what == "version" else "1.0",
            )

    fake.fail = restart
    with serving(fake) as url:
        assert "another model answers" in refused(url, tmp_path, "--limit", "60")


def test_another_model_after_a_restart_is_not_taken_for_the_first(tmp_path: Path) -> None:
    """Other weights under the same name, between two commands: the canaries stored with the first run tell."""
    fake = Fake("vllm")
    with serving(fake) as url:
        assert asked(url, tmp_path).exit_code == 0
        assert asked(url, tmp_path, "--prompt", "shared").exit_code == 0
        fake.seed = 1
        result = asked(url, tmp_path, "--prompt", "task")
        assert result.exit_code == 5 and "another model is behind the address now" in result.stderr
        assert asked(url, tmp_path, "--prompt", "task", "--level", "Q4_K_M").exit_code == 0
    assert len(runs(tmp_path)) == 3


def test_what_a_server_says_of_itself_is_part_of_the_key(tmp_path: Path) -> None:
    """Another version or model name is another run; the name in the store is the user's."""
    fake = Fake("vllm", name="/models/secret/served-q8.gguf")
    with serving(fake) as url:
        assert asked(url, tmp_path, "--model", "mine").exit_code == 0
        fake.version = "1.1"
        assert asked(url, tmp_path, "--model", "mine").exit_code == 0
        fake.name = "/models/secret/served-q4.gguf"
        assert asked(url, tmp_path, "--model", "mine", "--level", "Q4_K_M").exit_code == 0
    found = runs(tmp_path)
    assert len({run.key.digest for run in found}) == 3
    assert {(run.key.model, str(run.key.level)) for run in found} == {("mine", "-"), ("mine", "Q4_K_M")}
    assert "secret" not in json.dumps([run.key.content() for run in found])


def test_the_key_goes_to_the_server_and_nowhere_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is sent with every request and shows neither in the store nor in a message that quotes it."""
    monkeypatch.setenv(client.KEY_VARIABLE, "open-sesame-123")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    fake = Fake("vllm")
    with serving(fake) as url:
        assert asked(url, tmp_path).exit_code == 0
    assert {headers.get("authorization") or headers.get("Authorization") for headers in fake.headers} == {"Bearer open-sesame-123"}
    (run,) = runs(tmp_path)
    assert "sesame" not in run.env.model_dump_json() + json.dumps(run.key.content())
    with serving(Fake("vllm", fail=lambda *_: (401, {}, b"wrong key open-sesame-123"))) as url, pytest.raises(ServerError) as error:
        Client(url).ask("/v1/models")
    assert "sesame" not in str(error.value) and client.KEY_VARIABLE in str(error.value)


@pytest.mark.parametrize("url", ["ftp://x", "localhost:80", "http://", "http://u:p@host", "http://host?key=1", "http://host:99999999", ""])
def test_an_address_that_cannot_be_used_or_holds_a_key_is_refused(url: str) -> None:
    """No key comes in by the address, where it could be stored."""
    with pytest.raises(UsageError, match="--url"):
        checked_url(url)


@pytest.mark.parametrize(
    "more",
    [["--method", "wanda"], ["--dtype", "float32"], ["--device", "cpu"], ["--level", "Q4_0", "--level", "Q8_0"], ["--self-check", "2"]],
)
def test_what_a_server_cannot_do_is_refused_by_name(more: list[str], tmp_path: Path) -> None:
    """Compression, number formats and several levels belong to models that run here."""
    with serving(Fake("vllm")) as url:
        assert more[0].removeprefix("--") in refused(url, tmp_path, *more)


def test_a_bound_that_no_set_depends_on_is_kept_and_any_other_refused() -> None:
    """One option far below all scores of others is kept as its bound; two in one item, or one among the scores, are not."""
    rows = [[-0.1, -2.5, -6.0, -7.0], [-0.3, -1.5, -4.0, -6.5]]
    options, n_options = (1, 2, 3, 4), [4, 4]
    replies = [Reply(dict(zip(options, row, strict=True)), 1) for row in rows]
    assert check_bounds(Bounded.of(replies, options, n_options)) == ()
    low = Reply({1: -0.1, 2: -2.5, 3: -6.0}, 1, bound=-30.0)
    found = Bounded.of([low, replies[1]], options, n_options)
    assert found.logprobs[0, 3] == -30
    assert "1 options of 1 items" in check_bounds(found)[0]
    for reply in (Reply({1: -0.1, 2: -2.5, 3: -6.0}, 1, bound=-6.0), Reply({1: -0.1, 2: -2.5}, 1, bound=-30.0)):
        with pytest.raises(ServerError, match="nothing is stored"):
            check_bounds(Bounded.of([reply, replies[1]], options, n_options))
    with pytest.raises(ServerError, match="lacks option 4"):
        Bounded.of([Reply({1: -0.1, 2: -2.5, 3: -6.0}, 1), replies[1]], options, n_options)
