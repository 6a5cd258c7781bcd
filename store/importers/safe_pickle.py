"""Read a pickle of numpy arrays and plain containers, and refuse one that asks for anything else.

In: bytes of an untrusted pickle.  Out: the object. A pickle is a program. Its opcodes are checked before it runs, so that no length or memo
index asks for more memory than the file has bytes. When it runs, it may only call three functions and name two types, all of numpy. They
are replaced by stand-ins that have no settable attributes and create nothing but numbers. No tuple may be a key: hashing one that holds
another twice, and that another twice, would never end.
"""

import io
import pickle
import pickletools
import re
from collections.abc import Callable
from typing import Any

import numpy as np

from schemas.errors import UsageError

_NUMBER_TYPE = re.compile(r"[<>=|]?(?:[iu][1248]|f[248]|b1|bool)")
_OPCODES = {ord(opcode.code): opcode for opcode in pickletools.opcodes}
_COUNTED = {pickletools.TAKEN_FROM_ARGUMENT1: 1, pickletools.TAKEN_FROM_ARGUMENT4: 4, pickletools.TAKEN_FROM_ARGUMENT4U: 4}
_COUNTED[pickletools.TAKEN_FROM_ARGUMENT8U] = 8  # number of bytes that state how many bytes follow
_LONG_BINPUT, _STOP = ord(pickle.LONG_BINPUT), ord(pickle.STOP)
_UNUSED = {
    *("EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID", "NEXT_BUFFER", "READONLY_BUFFER", "PUT", "GET", "INST", "DUP"),
    *("EMPTY_SET", "ADDITEMS", "FROZENSET"),
}  # no array needs them
_SIZES = {  # of each opcode without lines of text: how many bytes its argument has, and whether they state how many more follow
    code: (max(n, 0) + _COUNTED.get(n, 0), n in _COUNTED)
    for code, opcode in _OPCODES.items()
    for n in [opcode.arg.n if opcode.arg else 0]
    if opcode.name not in _UNUSED and (n >= 0 or n in _COUNTED)
}
_BINGET = ord(pickle.BINGET)
_GETS, _PUTS = {_BINGET, ord(pickle.LONG_BINGET)}, {ord(pickle.BINPUT), ord(pickle.LONG_BINPUT)}
_MARK, _MEMOIZE, _POP = ord(pickle.MARK), ord(pickle.MEMOIZE), ord(pickle.POP)
_FILLS = {ord(code) for code in (pickle.BUILD, pickle.APPEND, pickle.APPENDS, pickle.SETITEM, pickle.SETITEMS)}  # leave what they fill
_SETS = {ord(pickle.SETITEM), ord(pickle.SETITEMS), ord(pickle.DICT)}
# of each opcode: how many values it takes from the top (None: all above the mark, and then as many as the second number), and of each
# value that it leaves whether it is a tuple
_EFFECTS = {
    code: (
        (None, before.index(pickletools.markobject)) if pickletools.markobject in before else (len(before), 0),
        [kind is pickletools.pytuple for kind in opcode.stack_after],
    )
    for code, opcode in _OPCODES.items()
    for before in [opcode.stack_before]
}
_CONSTANTS = {code for code, effect in _EFFECTS.items() if effect == ((0, 0), [False])} - _GETS - _PUTS - {_MARK, _MEMOIZE, _POP}


def load_plain_pickle(content: bytes, where: str) -> Any:
    """Return the object in a pickle. Raises UsageError naming the first thing it asks for that arrays and containers do not need."""
    try:
        _check_steps(content)
        return _PlainUnpickler(io.BytesIO(content), where).load()
    except UsageError:
        raise
    except Exception as error:  # a broken pickle can raise anything, from EOFError to TypeError
        raise UsageError(f"{where} is not a pickle of arrays and plain containers: {type(error).__name__} {str(error)[:120]}") from error


def _check_steps(content: bytes) -> None:
    """Raise ValueError for an opcode that is truncated, unknown, or asks for more memory than the file could fill."""
    position, size, tuples = 0, len(content), _Tuples()
    stack, memo = tuples.stack, tuples.memo
    while position < size:
        code = content[position]
        if code == _STOP:
            return
        argument = position + 1
        if code in _SIZES:
            width, counted = _SIZES[code]
            end = argument + width
            if counted:
                end += int.from_bytes(content[argument:end], "little")
        else:
            end = _end_of_lines(content, position, code)
        if end > size:
            raise ValueError(f"step {_OPCODES[code].name} at byte {position} needs {end - size} bytes more than there are")
        if code in _CONSTANTS:  # these and the next two are most of a published file's 300,000 steps
            stack.append(False)
        elif code == _MEMOIZE and stack:
            memo[len(memo)] = stack[-1]
        elif code == _BINGET:
            stack.append(memo.get(content[argument], False))
        else:
            index = int.from_bytes(content[argument:end], "little") if code in _GETS or code in _PUTS else 0
            if code == _LONG_BINPUT and index > size:
                raise ValueError(f"it asks for position {index} in a memo, of a file of {size} bytes")
            tuples.follow(code, index)
        position = end
    raise ValueError("it has no end")


class _Tuples:
    """Which values on a pickle's stack and in its memo are tuples."""

    def __init__(self) -> None:
        self.stack: list[bool] = []
        self.marks: list[int] = []  # heights of the stack
        self.memo: dict[int, bool] = {}

    def follow(self, code: int, index: int) -> None:
        """Do what an opcode does to the stack. Raises ValueError for a tuple as a key, and where the stack holds too little."""
        stack, marks = self.stack, self.marks
        if code == _MARK:
            marks.append(len(stack))
        elif code in _GETS:
            stack.append(self.memo.get(index, False))
        elif code in _PUTS or code == _MEMOIZE:
            self.memo[len(self.memo) if code == _MEMOIZE else index] = self._top(1)[0]
        elif code == _POP and marks and marks[-1] == len(stack):
            marks.pop()
        else:
            (taken, below), pushed = _EFFECTS[code]
            if taken is None and not marks:
                raise ValueError("it looks for a mark that it did not set")
            above = stack[marks[-1] :] if taken is None else self._top(taken)
            if code in _SETS and any(above[::2] if taken is None else above[1:2]):
                raise ValueError("a key is a tuple")
            del stack[len(stack) - len(above) :]
            if taken is None:
                marks.pop()
                above = self._top(below) + above
                del stack[len(stack) - below :]
            stack += above[:1] if code in _FILLS else pushed

    def _top(self, count: int) -> list[bool]:
        if count > len(self.stack):
            raise ValueError("it takes more values than it has put down")
        return self.stack[len(self.stack) - count :]


def _end_of_lines(content: bytes, position: int, code: int) -> int:
    """Return where an opcode with lines of text ends."""
    opcode = _OPCODES.get(code)
    if opcode is None or opcode.name in _UNUSED:
        raise ValueError(f"step {'of an unknown kind' if opcode is None else opcode.name} at byte {position}")
    for _ in range(2 if opcode.name == "GLOBAL" else 1):
        position = content.find(b"\n", position) + 1
        if position == 0:
            raise ValueError(f"step {opcode.name} has no end")
    return position


class _Stand:
    """Stand-in that a pickle calls instead of one of numpy's functions or types; its attributes cannot be set."""

    __slots__ = ("_call",)
    _call: Callable[..., Any]

    def __init__(self, call: Callable[..., Any]) -> None:
        object.__setattr__(self, "_call", call)

    def __call__(self, *arguments: Any) -> Any:
        return self._call(*arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        raise ValueError(f"it sets the attribute {name[:80]!r} of a function")


def _dtype(name: Any, *_: Any) -> np.dtype[Any]:
    if not isinstance(name, str) or not _NUMBER_TYPE.fullmatch(name):
        raise ValueError(f"it holds values of type {str(name)[:80]!r}, not numbers")
    return np.dtype(name, copy=True)  # a copy, since the pickle goes on to set its byte order


def _empty(kind: Any, shape: Any, code: Any) -> np.ndarray[Any, Any]:
    """Return an array before its content is set; numpy pickles it with the shape (0,)."""
    if kind is not _NDARRAY or shape != (0,) or code not in (b"b", "b"):
        raise ValueError("an array is not made as numpy makes it")
    return np.empty(0, dtype=np.int8)


def _from_buffer(buffer: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray[Any, Any]:
    return np.frombuffer(buffer, dtype=dtype).reshape(shape, order=order)


def _scalar(dtype: Any, content: Any) -> Any:
    return np.frombuffer(content, dtype=dtype, count=1)[0]


def _no_array(*_: Any) -> Any:
    raise ValueError("an array is not made as numpy makes it")


_NDARRAY = _Stand(_no_array)
# numpy 1 and 2 write the same functions under two module names
ADMITTED = {
    (f"{core}.{module}", name): stand
    for core in ("numpy.core", "numpy._core")
    for module, name, stand in (
        ("multiarray", "_reconstruct", _Stand(_empty)),
        ("multiarray", "scalar", _Stand(_scalar)),
        ("numeric", "_frombuffer", _Stand(_from_buffer)),
    )
} | {("numpy", "ndarray"): _NDARRAY, ("numpy", "dtype"): _Stand(_dtype)}


class _PlainUnpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, where: str) -> None:
        super().__init__(file)
        self._where = where

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in ADMITTED:
            raise UsageError(f"{self._where} asks for {module[:80]}.{name[:80]}; logits need numpy arrays and plain containers only")
        return ADMITTED[module, name]
