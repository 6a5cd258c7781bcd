"""Answers that are not stored yet, on disk: a run that was cut off, even by `kill -9`, goes on where it was.

In: who answers (everything that determines an answer but the question), questions, answers as JSON values.  Out: the answers found.

Every process has a file of its own, so that two at once never write into one: `journal/<digest of who answers>/<random name>` in the
cache folder. Its first record says under which circumstances the answers were given; a reader takes a file only if it accepts these.
A record is a line with a checksum over the file's name, who answers, question and answer; a record that is damaged, cut off, or another
file's counts as absent.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

from schemas.digest import json_digest
from store.backend.user_cache import cache_folder, delete_unused, existing_cache_folder, warn_once

log = logging.getLogger(__name__)

CIRCUMSTANCES = "circumstances"
ENDING = ".answers"
FOLDER = "journal"
MOST_BYTES = 2**30  # of all journals; beyond it, those that were written to longest ago are deleted


class Journal:
    """The answers of one answerer that earlier processes left, and a file for those of this process.

    answerer      : JSON value of everything that determines an answer but the question.
    circumstances : JSON value that other processes compare with theirs.
    accept        : whether answers given under other circumstances may be taken.

    Attributes
    ----------
    left_out : number of answers in files whose circumstances were not accepted.
    """

    def __init__(self, answerer: Any, circumstances: Any, accept: Callable[[Any], bool]) -> None:
        self._answerer, self._circumstances = json_digest(answerer), circumstances
        self._folder = existing_cache_folder() / FOLDER / self._answerer
        self._new_file = self._folder / f"{uuid4().hex}{ENDING}"
        self._files, self._asked = dict[Path, dict[str, Any]](), set[str]()
        self.left_out = 0
        for path in delete_unused(self._folder.parent.glob(f"*/*{ENDING}"), MOST_BYTES):
            _remove_if_empty(path.parent)
        for path in sorted(self._folder.glob(f"*{ENDING}")):
            answers = dict(_records(path, self._answerer))
            given_under = answers.pop(CIRCUMSTANCES, None)
            if given_under is None or not accept(given_under):
                self.left_out += len(answers)
                continue
            self._files[path] = answers

    def answer(self, question: str) -> Any:
        """Return the answer to a question, as `question_id` names it, None if no earlier process left one."""
        self._asked.add(question)
        return next((answers[question] for answers in self._files.values() if question in answers), None)

    def add(self, answers: Mapping[str, Any]) -> None:
        """Append answers by question; they are on disk when this returns. A full disk costs a warning and the answers' safety only."""
        try:
            records = dict(answers) if self._new_file.exists() else {CIRCUMSTANCES: self._circumstances, **answers}
            self._folder.mkdir(parents=True, exist_ok=True)
            with self._new_file.open("ab") as stream:  # a line begins with its break too, so that a line that was cut off spoils no other
                stream.write("".join(f"\n{self._line(self._new_file, *record)}\n" for record in records.items()).encode())
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            warn_once(error)

    def remove(self) -> None:
        """Delete the answers to what was asked for, and those that were added; call this when they are stored.

        A file that also has answers to other questions stays: another process may be at work on them, or come back for them.
        """
        for path in (*(path for path, answers in self._files.items() if answers.keys() <= self._asked), self._new_file):
            path.unlink(missing_ok=True)
        _remove_if_empty(self._folder)

    def _line(self, path: Path, question: str, answer: Any) -> str:
        return json.dumps([question, answer, _checksum(path, self._answerer, question, answer)], allow_nan=False)


def remove_journals(answerer: Any, is_over: Callable[[Any], bool]) -> None:
    """Delete the files of an answerer whose circumstances say that nobody will come back for them, or that cannot be read."""
    digest = json_digest(answerer)
    folder = cache_folder(FOLDER) / digest
    for path in folder.glob(f"*{ENDING}"):
        _, given_under = next(_records(path, digest), (CIRCUMSTANCES, None))
        if given_under is None or is_over(given_under):
            path.unlink(missing_ok=True)
    _remove_if_empty(folder)


def question_id(*parts: Any) -> str:
    """Return the name of a question: a digest of the JSON values that make it what it is."""
    return json_digest(parts)


def _records(path: Path, answerer: str) -> Iterator[tuple[str, Any]]:
    """Yield the whole records of a file as question and answer.

    answerer : digest of who answers.
    """
    try:
        lines = path.read_bytes().splitlines()
    except OSError as error:
        log.warning("%s cannot be read (%s); its questions are asked again", path, error.strerror or error)
        return
    for line in filter(None, lines):
        with suppress(ValueError, TypeError, RecursionError):
            question, answer, checksum = json.loads(line)
            if isinstance(question, str) and checksum == _checksum(path, answerer, question, answer):
                yield question, answer


def _checksum(path: Path, answerer: str, question: str, answer: Any) -> str:
    return json_digest([answerer, path.name, question, answer])[:16]


def _remove_if_empty(folder: Path) -> None:
    with suppress(OSError):  # another process has a file in it, or has removed it
        folder.rmdir()
