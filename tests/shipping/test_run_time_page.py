"""docs/run_time.md: every program on the page runs as it stands there."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shipping import made

from analyzer.predictor import Predictor
from analyzer.scorers import RANDOM, SCORERS

PAGE = (Path(__file__).parents[2] / "docs" / "run_time.md").read_text(encoding="utf-8")
PYTHON = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
[JAVASCRIPT] = re.findall(r"```javascript\n(.*?)```", PAGE, re.DOTALL)


@pytest.fixture
def predictor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Predictor:
    """A predictor in the working folder, under the name that the page uses."""
    monkeypatch.chdir(tmp_path)
    found = made()
    found.save("predictor.json")
    return found


@pytest.mark.usefixtures("predictor")
def test_plain_python(capsys: pytest.CaptureFixture[str]) -> None:
    """The first program prints a set, a decision, a mean set size and a set of a question with three options."""
    exec(PYTHON[0], {})
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "('A',)" and lines[1] == "answer" and 1 < float(lines[2]) < 4 and len(lines) == 4


def response(values: dict[str, float]) -> dict[str, Any]:
    """A response of /v1/completions, reduced to what is read of it."""
    return {"choices": [{"text": " A", "logprobs": {"tokens": [" A"], "top_logprobs": [values]}}]}


def test_response_of_a_server(predictor: Predictor) -> None:
    """The second program reads a completion's log-probabilities, also where options are not among them."""
    names: dict[str, Any] = {}
    exec(PYTHON[1], names)
    inside, exact, decision = names["decide"](response({" A": -0.01, " The": -6.0, " B": -7.0, "\n": -9.0}))
    assert (inside, exact, decision) == (("A",), True, "answer")
    full = {" A": -1.0, " B": -1.2, " C": -1.9, " D": -3.0, " The": -5.0}
    inside, exact, _ = names["decide"](response(full))
    assert exact and inside == predictor.names(predictor.predict([-1.0, -1.2, -1.9, -3.0]))
    assert not names["decide"](response({" A": -1.1, " B": -1.2, " The": -1.3}))[1]


KINDS: list[dict[str, Any]] = [
    *({"scorer": name} for name in SCORERS if name not in RANDOM),
    {"scorer": "raps", "parameters": ["raps.penalty=0.3", "raps.k_reg=1"], "reliability": "temperature"},
    {"scorer": "saps", "parameters": ["saps.weight=0.05"], "by": "subject"},
    {"empty": "top1", "alpha": "0.4"},
    {"max_wrong": "0.2", "guarantee": "pac:0.9"},
    {"subject_mix": {"law": 0.8, "history": 0.2}},
]


def in_javascript(expression: str, folder: Path) -> Any:
    """The value of an expression after the page's program, from Node or else a headless browser."""
    program = f"{JAVASCRIPT}\nconst found = JSON.stringify({expression});"
    if node := shutil.which("node"):
        (folder / "port.js").write_text(f"{program}\nconsole.log(found);", encoding="utf-8")
        return json.loads(subprocess.run([node, "port.js"], cwd=folder, capture_output=True, text=True, check=True).stdout)
    if browser := shutil.which("chromium") or shutil.which("google-chrome"):
        page = f'<body><script type="module">{program}\ndocument.body.textContent = found;</script>'
        (folder / "port.html").write_text(page, encoding="utf-8")
        arguments = [browser, "--headless", "--no-sandbox", "--dump-dom", (folder / "port.html").as_uri()]
        page = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=120).stdout
        return json.loads(html.unescape(re.findall(r"<body>(.*?)</body>", page, re.DOTALL)[0]))
    pytest.skip("neither node nor Chromium is installed")


def test_javascript_gives_every_test_vector(tmp_path: Path) -> None:
    """Every scorer, subjects, a temperature, filled sets, a limit on wrong answers: each is right, and with another threshold none is."""
    values = [made(**options).document.value for options in KINDS]
    moved = [{**value, "thresholds": [{**one, "threshold": "9"} for one in value["thresholds"]]} for value in values]
    found = in_javascript(f"[{json.dumps(values)}.map(right), {json.dumps(moved)}.map(right)]", tmp_path)
    assert found == [[True] * len(KINDS), [False] * len(KINDS)]


@pytest.mark.large
def test_javascript_agrees_on_fresh_questions(tmp_path: Path) -> None:
    """1,000 random questions of 2 to 4 options get the runtime's sets and decisions."""
    rng = np.random.default_rng(0)
    rows = [rng.normal(scale=2, size=rng.integers(2, 5)).tolist() for _ in range(1000)]
    for options in KINDS:
        predictor = made(**options)
        subject = "law" if predictor.subjects else None
        calls = f"{json.dumps(rows)}.map((row) => judge({json.dumps(predictor.document.value)}, row, {json.dumps(subject)}))"
        for row, found in zip(rows, in_javascript(calls, tmp_path), strict=True):
            own = {"n_options": len(row), "subject": subject}
            assert found["set"] == list(predictor.names(predictor.predict(row, **own))), (options, row)
            assert found["decision"] == predictor.decide(row, **own), (options, row)


@pytest.mark.parametrize("call", ["[1, NaN, 2, 3]", "[1]", "[1, 2, 3, 4, 5]", '[1, 2, 3, 4], "law"'])
def test_javascript_refuses_what_the_runtime_refuses(call: str, predictor: Predictor, tmp_path: Path) -> None:
    """NaN, too few or too many options, and a subject without a threshold throw instead of giving a set."""
    refused = (
        f"(() => {{ try {{ return judge({json.dumps(predictor.document.value)}, {call}); }} catch (error) {{ return error.message; }} }})()"
    )
    assert isinstance(in_javascript(refused, tmp_path), str)
