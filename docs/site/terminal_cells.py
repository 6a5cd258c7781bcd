"""IPython runs this where the site's tutorials are run (PYTHONSTARTUP): a cell of commands shows its output whole and as a terminal does.

IPython's own `%%bash` hands on a hundred bytes at a time, errors apart, and goes on after a command that failed.
"""

import subprocess

from IPython.core.magic import register_cell_magic


@register_cell_magic
def bash(_line: str, cell: str) -> None:
    """Run the commands until one fails, print what they said, and raise if one failed."""
    done = subprocess.run(["bash", "-e", "-c", cell], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False)
    print(done.stdout, end="")
    if done.returncode:
        raise RuntimeError(f"a command ended with exit code {done.returncode}")
