"""How every function of the API takes its arguments: by their names, in the forms of `arguments.py`, with errors that speak of arguments.

The commands share the code below the API, whose messages say `--option`; here that becomes the argument of the same meaning.
"""

import inspect
import re
from collections.abc import Callable, Collection
from difflib import get_close_matches
from functools import wraps
from typing import ParamSpec, TypeVar

from analyzer.api.arguments import ACCEPTED, ARGUMENTS
from schemas.arguments import A_NUMBER, read_argument
from schemas.errors import HedgemarkError, UsageError
from schemas.known_names import known

P = ParamSpec("P")
R = TypeVar("R")

# An option, and the command that it belongs to where the message names one, as in `produce --task`: that stays as it is.
OPTION = re.compile(r"(?P<command>\b(?:produce|analyze|store)(?: [a-z]+)? )?--(?P<option>[a-z]+(?:-[a-z]+)*)")
RENAMED = {
    "alpha": "alphas",
    "scorer": "scorers",
    "parameter": "parameters",
    "from": "kept_from",
    "next": "n_next",
    "limit": "limits",
    "store": "source",
}


def checked(function: Callable[P, R]) -> Callable[P, R]:
    """Return a function that reads its arguments first; `inspect.unwrap` returns the one without, for the commands.

    None among `**options` is no choice: it leaves the option out.
    """
    signature = inspect.signature(function)
    named = {name: one for name, one in signature.parameters.items() if one.kind is not inspect.Parameter.VAR_KEYWORD}
    others = next(iter(signature.parameters.keys() - named.keys()), "")  # the name of its **options, if it has any
    accepted = (*named, *ACCEPTED.get(others, ()))
    any_name = others == "parameters"  # those of a scorer

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        if unknown := [name for name in kwargs if name not in accepted and not (any_name and not get_close_matches(name, named, 1, 0.8))]:
            raise unknown_argument(unknown[0], accepted)
        try:
            given = signature.bind(*args, **kwargs).arguments
        except TypeError:
            return function(*args, **kwargs)  # Python's own message says how many arguments this function takes, or which one is missing
        rest = {name: value for name, value in given.pop(others, {}).items() if value is not None}
        given = {name: value for name, value in given.items() if value is not named[name].default}
        try:
            read = {name: read_argument(name, value, ARGUMENTS[name]) for name, value in given.items()}
            read |= {name: read_argument(name, value, A_NUMBER if any_name else ARGUMENTS[name]) for name, value in rest.items()}
            return function(**read)  # type: ignore[call-arg]
        except HedgemarkError as error:
            error.args = (in_arguments(str(error), accepted),)
            raise

    return call


def unknown_argument(name: str, accepted: Collection[str]) -> UsageError:
    """Return the error about an argument that a function does not have, with the name that was probably meant."""
    return UsageError(f"unknown argument {name!r}; {known(name, accepted)}")


def in_arguments(message: str, known: Collection[str]) -> str:
    """Return a message with the options of commands named as the arguments that a function has for them."""

    def argument(found: re.Match[str]) -> str:
        name = found["option"].replace("-", "_")
        name = name if name in known else RENAMED.get(name, name)
        return found[0] if found["command"] or name not in known else f"`{name}`"

    return OPTION.sub(argument, message)
