"""Servers on loopback that answer like llama.cpp, vLLM, SGLang or TGI, from one table of log-probabilities, and can be made to fail.

llama.cpp and vLLM are also asked themselves in other tests. The two others have no build for a CPU on PyPI: `sglang` answers as the code of
version 0.5.23 does, and `tgi` as its OpenAPI description says.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
from numpy.typing import NDArray

VOCABULARY = 256


def log_probs(ids: list[int], seed: int = 0) -> NDArray[np.float64]:
    """Return what the model of a seed says after a prompt: log-probabilities of the whole vocabulary."""
    rng = np.random.default_rng([seed, *ids])
    logits = rng.normal(0, 2, VOCABULARY)
    return logits - np.log(np.exp(logits).sum())


class Fake:
    """One server. `fail(path, body, count)` may return (status, headers, bytes) instead of the true answer, or None."""

    def __init__(self, kind: str, **how: Any) -> None:
        self.kind, self.seed, self.cap = kind, how.get("seed", 0), how.get("cap", VOCABULARY)
        self.fail: Callable[[str, Any, int], tuple[int, dict[str, str], bytes] | None] = how.get("fail", lambda *_: None)
        self.name, self.version, self.count = how.get("name", "served"), "1.0", 0
        self.weight_version = "default"  # SGLang's name of the weights, which an update in a running server changes
        self.parent: str | None = how.get("parent")
        self.asked: list[tuple[str, Any]] = []
        self.tokenize: Callable[[str], list[int]] | None = how.get("tokenize")
        self.headers: list[dict[str, str]] = []
        self.change: Callable[[Any], Any] = how.get("change", lambda answer: answer)
        self.lock = threading.Lock()

    def answer(self, path: str, body: Any) -> tuple[int, Any]:  # noqa: PLR0911  # one for each address
        if path == "/v1/models":
            owner = {"llama.cpp": "llamacpp", "old vllm": "vllm"}.get(self.kind, self.kind)
            owner = self.name if self.kind == "tgi" else owner
            parent = {"parent": self.parent} if self.kind == "sglang" else {}
            return 200, {"object": "list", "data": [{"id": self.name, "owned_by": owner, "created": self.count} | parent]}
        if path == "/version" and "vllm" in self.kind:
            return 200, {"version": self.version}
        if path == "/props" and self.kind == "llama.cpp":
            return 200, {"build_info": self.version}
        if path == "/server_info" and self.kind == "sglang":
            return 200, {"version": self.version, "model_path": "/models/served", "quantization": None, "dtype": "auto", "tp_size": 1}
        if path == "/model_info" and self.kind == "sglang":
            return 200, {"model_path": "/models/served", "served_model_name": self.name, "weight_version": self.weight_version}
        if path == "/info" and self.kind == "tgi":
            return 200, {"model_id": self.name, "model_sha": "0f" * 20, "version": self.version, "max_input_tokens": 1024, "router": "tgi"}
        if path == "/generate" and self.kind == "sglang":
            table = log_probs(body["input_ids"], self.seed)
            top = int(table.argmax())
            meta = {
                "prompt_tokens": len(body["input_ids"]),
                "weight_version": self.weight_version,
                "output_token_logprobs": [[table[top], top, None]],
                "output_token_ids_logprobs": [[[table[token], token, None] for token in body["token_ids_logprob"]]],
            }
            return 200, {"text": "", "meta_info": meta}
        if path == "/tokenize" and self.tokenize:
            return 200, {"tokens": self.tokenize(body["prompt"])}
        if path == "/v1/completions":
            return self.completion(body)
        return 404, {"error": "not here"}

    def completion(self, body: Any) -> tuple[int, Any]:
        ids = body["prompt"]
        if self.kind == "tgi" and not all(isinstance(part, str) for part in ids):
            return 422, {"error": "prompt: data did not match any variant of untagged enum Prompt", "error_type": "validation"}
        table = log_probs(ids, self.seed)
        order = [int(token) for token in np.argsort(-table)]
        choice: dict[str, Any] = {"index": 0, "text": "x", "logprobs": None}
        if self.kind == "sglang":
            choice["logprobs"] = {"top_logprobs": [{f"text {token}": table[token] for token in order[: body.get("logprobs", 0)]}]}
            return 200, {"model": self.name, "choices": [choice], "usage": {"prompt_tokens": len(ids)}}
        if self.kind == "llama.cpp":
            entries = [{"id": token, "token": "x", "logprob": table[token]} for token in order[: body.get("logprobs", 0)]]
            choice["logprobs"] = {"content": [{"id": order[0], "top_logprobs": entries}]}
        elif self.kind == "vllm" and "logprob_token_ids" in body:
            tokens = [order[0], *body["logprob_token_ids"]]
            choice["logprobs"] = {"top_logprobs": [{f"token_id:{token}": table[token] for token in tokens}]}
        elif "vllm" in self.kind and "prompt_logprobs" in body:
            before = log_probs(ids[:-1], self.seed)
            last = {ids[-1], int(before.argmax())}
            choice["prompt_logprobs"] = [None] * (len(ids) - 1) + [{str(token): {"logprob": before[token]} for token in last}]
        elif body.get("logprobs"):
            if body["logprobs"] > self.cap:
                return 400, {"error": {"message": f"logprobs may be at most {self.cap}"}}
            choice["logprobs"] = {"top_logprobs": [{f"token_id:{token}": table[token] for token in order[: body["logprobs"]]}]}
        return 200, {"model": self.name, "choices": [choice], "usage": {"prompt_tokens": len(ids)}}


@contextmanager
def serving(fake: Fake) -> Iterator[str]:
    """Serve on a free port of 127.0.0.1 and yield the address; the server has ended when the block has."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True  # else a body waits 40 ms behind its headers

        def do_GET(self) -> None:
            self.reply(None)

        def do_POST(self) -> None:
            self.reply(json.loads(self.rfile.read(int(self.headers["content-length"]))))

        def reply(self, body: Any) -> None:
            with fake.lock:
                fake.count += 1
                count = fake.count
                fake.asked.append((self.path, body))
                fake.headers.append(dict(self.headers))
            failed = fake.fail(self.path, body, count)
            if failed is None:
                status, answer = fake.answer(self.path, body)
                failed = status, {}, json.dumps(fake.change(answer)).encode()
            status, headers, data = failed
            self.send_response(status)
            for name, value in ({"content-length": str(len(data))} | headers).items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(OSError):  # a client that gave up
                self.wfile.write(data)
            if "content-length" in headers:  # a false one: half an answer
                self.close_connection = True

        def log_message(self, *_: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
