"""Compile LaTeX that the tool wrote, in a document with no other packages than those it names."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

WRONG = re.compile(r"^(?:Overfull|Underfull \\vbox|Missing character|LaTeX Warning: Float too large|.*multiply defined).*", re.M)
NAMED = re.compile(r"\\usepackage\{\w+\}")


def complaints(text: str, folder: Path) -> list[str]:
    """Return what is cut, missing or double on the pages; skips the test where there is no pdflatex. Fails for what does not compile."""
    program = shutil.which("pdflatex")
    if program is None:
        pytest.skip("no pdflatex on this machine: apt-get install texlive-latex-recommended")
    packages = NAMED.findall(next(line for line in text.splitlines() if line.startswith("% needs")))
    document = [r"\documentclass{article}", *packages, r"\begin{document}", text, r"\end{document}"]
    (folder / "page.tex").write_text("\n".join(document), encoding="utf-8")
    command = [program, "-interaction=nonstopmode", "-halt-on-error", "page.tex"]
    for _ in range(2):  # a longtable has its widths from the first time
        done = subprocess.run(command, cwd=folder, capture_output=True, check=False)
        assert not done.returncode, done.stdout.decode(errors="replace")[-1500:]
    return WRONG.findall((folder / "page.log").read_text(errors="replace"))
