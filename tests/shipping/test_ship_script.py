"""docs/ship.sh from a compressed model to a watched threshold, as README shows it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from analyzer.conformal.guarantees import next_coverage
from analyzer.predictor import Predictor

SCRIPT = Path(__file__).parents[2] / "docs" / "ship.sh"


@pytest.mark.producer
def test_the_script_ships_a_threshold_that_covers_and_raises_an_alarm(tmp_path: Path) -> None:
    """Fresh questions are covered within the exact law of 2,000, without an alarm; refilled urns raise one at once."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(["sh", SCRIPT], cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ, "PATH": path})
    assert done.returncode == 0, done.stdout + done.stderr
    one = Predictor.load(tmp_path / "predictor.json").document.thresholds[0]
    low, high = next_coverage(one.n, one.k, 2000, 0.999)
    covered = {name: int(count) for name, count in re.findall(r"^(\w+): (\d+) of 2000 answers", done.stdout, re.MULTILINE)}
    assert (one.n, one.k) == (2000, 1801) and low <= covered["live"] <= high and covered["changed"] < low
    assert "monitor: not enough yet after 2,000 questions" in done.stderr or "monitor: holds after 2,000 questions" in done.stderr
    assert "monitor: alarm after 4,000 questions" in done.stderr
    assert re.search(r"exchangeable misses \([^)]*since changed\.parquet row", done.stderr)
    assert (tmp_path / "decisions.csv").read_text().count("\n") == 2001
