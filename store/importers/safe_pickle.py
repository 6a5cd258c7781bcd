"""Read a pickle that holds numpy arrays and plain containers, and refuse one that asks for anything else.

In: bytes of a stranger's pickle.  Out: the object. A pickle is a program; this one may call five functions, all numpy's.
"""

import io
import pickle
from typing import Any

from schemas.errors import UsageError

# numpy 1 and 2 write the same functions under two module names
ADMITTED = {
    (module, name)
    for core in ("numpy.core", "numpy._core")
    for module, name in ((f"{core}.multiarray", "_reconstruct"), (f"{core}.multiarray", "scalar"), (f"{core}.numeric", "_frombuffer"))
} | {("numpy", "ndarray"), ("numpy", "dtype")}


def load_plain_pickle(content: bytes, where: str) -> Any:
    """Return what a pickle holds. Raises UsageError naming the first global it asks for that is not numpy's array machinery."""
    try:
        return _PlainUnpickler(io.BytesIO(content), where).load()
    except UsageError:
        raise
    except Exception as error:  # a broken pickle can raise anything, from EOFError to TypeError
        raise UsageError(f"{where} is not a pickle of arrays and plain containers: {type(error).__name__} {str(error)[:120]}") from error


class _PlainUnpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, where: str) -> None:
        super().__init__(file)
        self._where = where

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ADMITTED:
            raise UsageError(f"{self._where} asks for {module[:80]}.{name[:80]}; logits need numpy arrays and plain containers only")
        return super().find_class(module, name)
