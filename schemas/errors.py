"""All errors that Hedgemark raises on purpose, under one base class, each with the exit code of a command that it ends.

A message is one sentence (or a sentence and a hint): what was found, what was expected, what to do next.
"""


class HedgemarkError(Exception):
    """Base class of all our errors; a command prints only its message and exits with `exit_code`."""

    exit_code = 5


class UsageError(HedgemarkError):
    """The request is invalid: an unknown name, an impossible level, an alpha outside (0, 1)."""

    exit_code = 2


class ItemError(UsageError):
    """Items that cannot be used: no answer, an answer outside the options, duplicate ids, broken JSON."""


class PlugInError(HedgemarkError):
    """A plug-in of another package cannot be used; the message names the package."""


class NonFiniteError(HedgemarkError):
    """NaN or infinite logits where finite ones are required."""


class PostConditionError(HedgemarkError):
    """A compressed model does not have the properties that its method and level promise; nothing was written."""


class RunNotFoundError(HedgemarkError, LookupError):
    """No run matches; the message lists what exists."""


class RunConflictError(HedgemarkError):
    """The store already holds this run with other content."""


class ComparisonError(HedgemarkError):
    """Two runs do not answer the same question and must not be compared."""


class StoreNotFoundError(HedgemarkError):
    """There is no store at this address."""


class StoreUnreachableError(HedgemarkError):
    """The server of the store does not answer, or denies access."""


class UnsafeServerError(HedgemarkError):
    """The server of a remote store would lose commits of simultaneous writers."""


class StoreInvalidError(HedgemarkError):
    """The store is damaged, hostile, or of a schema this version cannot read."""

    exit_code = 4
