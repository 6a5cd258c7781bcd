"""docs/run_time.md: every program on the page runs as it stands there."""

import html
import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from shipping import made

from analyzer.predictor import Predictor

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


def test_javascript(predictor: Predictor, tmp_path: Path) -> None:
    """The JavaScript gives every test vector its set; a threshold moved by a thousandth of the way would be noticed."""
    value = predictor.document.value
    moved = {**value, "thresholds": [{**value["thresholds"][0], "threshold": "0.2"}]}
    program = f"{JAVASCRIPT}\nconst found = JSON.stringify([right({json.dumps(value)}), right({json.dumps(moved)})]);"
    if node := shutil.which("node"):
        (tmp_path / "port.js").write_text(f"{program}\nconsole.log(found);", encoding="utf-8")
        output = subprocess.run([node, "port.js"], cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    elif browser := shutil.which("chromium") or shutil.which("google-chrome"):
        (tmp_path / "port.html").write_text(f"<body><script>{program}\ndocument.body.textContent = found;</script>", encoding="utf-8")
        arguments = [browser, "--headless", "--no-sandbox", "--dump-dom", (tmp_path / "port.html").as_uri()]
        page = subprocess.run(arguments, capture_output=True, text=True, check=True, timeout=120).stdout
        output = html.unescape(re.findall(r"<body>(.*?)</body>", page, re.DOTALL)[0])
    else:
        pytest.skip("neither node nor Chromium is installed")
    assert json.loads(output) == [True, False]
