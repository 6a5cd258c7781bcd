"""Remove private information from what is stored with a run: absolute paths, user names, tokens and credentials.

In: a command's arguments, or an `Environment`.  Out: the same in a form that can be shared.
"""

import getpass
import os
import re
import shlex
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

from schemas.run import Environment

REDACTED = "[redacted]"
# Tokens of the Hub, AWS, GitHub, OpenAI and Google, by their prefixes, and JSON web tokens.
_SECRET = re.compile(r"\b(?:hf_|AKIA|ASIA|ghp_|gho_|github_pat_|sk-|AIza|eyJ)[A-Za-z0-9_\-.]{8,}")
CIRCUMSTANCES = ("device", "driver", "host_os", "command", "created", "duration_s", "peak_memory_bytes", "throughput")


def shareable_command(program: str, arguments: Sequence[str]) -> str:
    """Return a command line without absolute paths, user names and tokens, and with only host and path of URLs."""
    return shlex.join([program, *(shareable(argument) for argument in arguments)])


def shareable(argument: str) -> str:
    """Return one argument in a form that can be shared.

    A path below the working folder becomes relative, a path below the home folder begins with ~, and of any other path only the last name
    is kept.
    """
    option, equals, value = argument.partition("=") if argument.startswith("--") else ("", "", argument)
    text = _SECRET.sub(REDACTED, _url(value) if "://" in value else _path(value))
    return option + equals + text


def shareable_message(text: str) -> str:
    """Return a sentence whose words are fit to be shared; what is fit already stays as it is."""
    return " ".join(map(shareable, text.split(" ")))


def without_circumstances(env: Environment) -> Environment:
    """Return what `--private` stores of an environment: library versions and what describes the run itself, not the machine."""
    empty = Environment()
    return env.model_copy(update={name: getattr(empty, name) for name in CIRCUMSTANCES})


def _url(text: str) -> str:
    try:
        parts = urlsplit(text)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return REDACTED
    if parts.scheme == "file":
        return f"file:{_path(parts.path)}"
    return f"{parts.scheme}://{host}{f':{port}' if port else ''}{_without_user(parts.path)}"


def _path(text: str) -> str:
    expanded = os.path.expanduser(text)
    if not os.path.isabs(expanded) and ".." not in Path(expanded).parts:
        return _without_user(text)
    path = os.path.abspath(expanded)
    for folder, name in ((os.getcwd(), "."), (os.path.expanduser("~"), "~")):
        if folder != os.sep and (path == folder or path.startswith(folder + os.sep)):
            return os.path.join(name, _without_user(os.path.relpath(path, folder))).removeprefix("./") if path != folder else name
    return os.path.join("...", _without_user(os.path.basename(path)))


def _without_user(path: str) -> str:
    """Return a path in which every part that equals the user's name is redacted."""
    return "/".join(REDACTED if part and part == _user() else part for part in path.split("/"))


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):  # a user without a name, as in a container
        return ""
