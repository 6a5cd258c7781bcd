"""Apply a predictor: logits in, prediction sets and decisions out, computed by the same functions that `analyze` scores with.

In: logits of the options of one question or many.  Out: which options each set contains, and what to do with each question.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from analyzer.predictor.document import ABSTAIN, ANSWER, ASK_AGAIN, DECISION_PRICES, DECISIONS, REVIEW, Document, read_document
from analyzer.predictor.partial import Partial, least_top_prob, score_bounds
from analyzer.scorers import PLUG_INS, RANDOM, SCORERS, scorer_parameters
from analyzer.stats.arrays import AnyArray, BoolArray, FloatArray, IntArray
from analyzer.stats.probs import softmax, top_option
from schemas.errors import UsageError
from schemas.options import own_options

if TYPE_CHECKING:
    from pathlib import Path

FEWEST = 2  # options that a question must have


class Judged(NamedTuple):
    """Many questions: `sets` (question, option) bool, `probs` (question, option), `scores` (question, option), `threshold` (question,)."""

    sets: BoolArray
    probs: FloatArray
    scores: FloatArray
    threshold: FloatArray


class Predictor:
    """A calibrated predictor: its thresholds and the rules for using them. `document` is its validated file."""

    def __init__(self, document: Document) -> None:
        self.document = document
        self.letters = document.letters
        scorers = [name for name in SCORERS if name not in RANDOM and name not in PLUG_INS]
        if document.scorer not in scorers:
            raise UsageError(f"the predictor's scorer is {document.scorer!r}; known: {', '.join(scorers)}")
        self._scorer, self._parameters = SCORERS[document.scorer], scorer_parameters(document.scorer, document.parameters)
        self._by_subject = {one.subject: one.value for one in document.thresholds}

    def __repr__(self) -> str:
        """Say what is predicted with which guarantee, and on what the predictor was made."""
        made_on, of = self.document.value["made_on"], self.document.scorer
        return f"<Predictor of options {''.join(self.letters)}, scorer {of}, alpha {self.document.alpha}: made on {made_on['run']}>"

    @classmethod
    def load(cls, path: "Path | str") -> "Predictor":
        """Return the predictor in a file, after checking its schema, digest and test vectors.

        Raises UsageError if the file is no predictor, has a newer version or was changed by hand, or if a test vector gives another
        result on this machine.
        """
        predictor = cls(read_document(path))
        predictor.check(str(path))
        return predictor

    def save(self, path: "Path | str") -> None:
        """Write the predictor to a file, completely or not at all. Raises UsageError for a folder that does not exist."""
        from pathlib import Path

        from store.exchange.whole_file import write_document
        from store.shown import json_text

        write_document(Path(path), (json_text(self.document.value, indent=1) + "\n").encode())

    def check(self, name: str = "") -> None:
        """Raise UsageError if a test vector gives another set or another decision on this machine, or there is none."""
        if not self.document.vectors:
            raise UsageError(f"predictor {name} has no test vectors to check this machine with; write it again with analyze calibrate")
        for number, vector in enumerate(self.document.vectors, start=1):
            try:
                letters = self.names(self.predict(vector.logits, n_options=len(vector.logits), subject=vector.subject))
                decision = self.decide(vector.logits, n_options=len(vector.logits), subject=vector.subject)
            except UsageError as error:
                raise UsageError(f"predictor {name}: test vector {number}: {error}") from error
            if (letters, decision) != (vector.letters, vector.decision):
                actual, expected = (f"{', '.join(one) or 'nothing'} ({what})" for one, what in ((letters, decision), vector[2:]))
                raise UsageError(f"predictor {name}: test vector {number} gives {actual} on this machine instead of {expected}")

    @property
    def subjects(self) -> tuple[str, ...]:
        """The subjects that have a threshold of their own; () if one threshold applies to all questions."""
        return tuple(one.subject for one in self.document.thresholds if one.subject is not None)

    def predict(
        self, logits: Any, *, n_options: int | Sequence[int] | IntArray | None = None, subject: str | Sequence[str] | None = None
    ) -> BoolArray:
        """Return which options are in the set: (option,) for one question, (question, option) for many; as wide as `logits`.

        logits    : (option,) or (question, option), in the order of `letters`; log-probabilities work as well.
        n_options : number of options of each question, if it may be smaller than the number of letters; columns beyond it are ignored.
        subject   : subject of each question, which selects its threshold; required if thresholds are by subject, else not allowed.
        Raises UsageError for NaN and infinity, for a width other than the predictor's if `n_options` is not given, and for unknown
        subjects.
        """
        rows, single = _rows(logits)
        sets = self.judge(rows, n_options, subject).sets[:, : rows.shape[1]]
        return np.asarray(sets[0] if single else sets)

    def decide(
        self, logits: Any, *, n_options: int | Sequence[int] | IntArray | None = None, subject: str | Sequence[str] | None = None
    ) -> Any:
        """Return what to do: "answer", "ask again", "review" or "abstain"; a string for one question, an array (question,) for many.

        Without a limit on wrong answers, a set of one option is answered, one of up to `ask_again_up_to` options is asked again, a larger
        one is reviewed, and an empty one abstains. With a limit, the likeliest option is answered if its probability is high enough; for
        the other questions the size of the set decides as above, except that a set of one option is asked again, or reviewed if
        `ask_again_up_to` is 1.
        """
        rows, single = _rows(logits)
        decisions = self.decisions(self.judge(rows, n_options, subject))
        return str(decisions[0]) if single else decisions

    def names(self, sets: BoolArray) -> Any:
        """Return the letters of sets: a tuple for (option,), a list of tuples for (question, option)."""
        if sets.ndim == 1:
            return tuple(letter for letter, inside in zip(self.letters, sets, strict=False) if inside)
        return [self.names(one) for one in sets]

    def predict_partial(
        self, known: Mapping[str, float], at_most: float, *, n_options: int | None = None, subject: str | None = None
    ) -> Partial:
        """Return the set of one question for which an API did not return the log-probability of every option.

        known   : log-probability or logit by letter.
        at_most : the smallest log-probability returned for any token, and so an upper bound of the missing ones.
        The set contains every option that may be in it, so that coverage holds whatever the missing values are; `exact` says whether they
        cannot change it. Raises UsageError if nothing is known, a letter is not the predictor's, or a known value lies below `at_most`.
        """
        letters = self.letters[: len(self.letters) if n_options is None else int(self._counts(1, len(self.letters), n_options)[0])]
        if unknown := [letter for letter in known if letter not in letters]:
            raise UsageError(f"there is no option {unknown[0]!r:.40}; the question has {', '.join(letters)}")
        values = np.array([known.get(letter, np.nan) for letter in letters])
        missing = np.array([letter not in known for letter in letters])
        if not np.isfinite(values[~missing]).all() or not np.isfinite(at_most):
            raise UsageError("a log-probability is NaN or infinite; leave options out whose value was not returned")
        if missing.all():
            raise UsageError("none of the options was returned; ask for more log-probabilities")
        if missing.any() and values[~missing].min() < at_most:
            raise UsageError(f"an option has {values[~missing].min():g}, below at_most {at_most:g}, which is the smallest value returned")
        if not missing.any():
            judged = self.judge(values[None], [len(letters)], subject)
            inside = self.names(judged.sets[0])
            return Partial(inside, inside, True, float(np.nanmax(judged.probs[0])))
        threshold = self._thresholds(1, subject)[0]
        cooled, least = values / self.document.temperature, at_most / self.document.temperature
        bounds = score_bounds(cooled, missing, least, self.document.scorer, self._parameters)
        possible, certain = bounds.low <= threshold, bounds.high <= threshold
        if self.document.empty == "top1":
            top = int(np.nanargmax(values))
            tied = (values == values[top]) | (missing & (at_most >= values[top]))
            possible = possible | tied
            certain = certain | (tied if tied.sum() == 1 else np.zeros_like(tied))
        least_prob = least_top_prob(cooled, missing, least)
        return Partial(self.names(possible), self.names(certain), bool((possible == certain).all()), least_prob)

    def decide_partial(self, partial: Partial) -> str:
        """Return what to do with a question that has missing values, from its largest possible set and its smallest possible top prob."""
        return str(self._decide(np.array([len(partial.set)]), np.array([partial.top_prob]))[0])

    def judge(
        self, rows: AnyArray, n_options: int | Sequence[int] | IntArray | None = None, subject: str | Sequence[str] | None = None
    ) -> Judged:
        """Return sets, probabilities and scores of (question, option) logits, with one column per letter of the predictor."""
        counts = self._counts(len(rows), rows.shape[1], n_options)
        width = len(self.letters)
        wide = np.full((len(rows), width), np.nan)
        shared = min(width, rows.shape[1])
        wide[:, :shared] = rows[:, :shared]
        has_option = own_options(counts, width)
        broken = np.any(has_option & ~np.isfinite(wide), axis=1)
        if broken.any():
            raise UsageError(f"row {int(broken.argmax())} has a logit that is NaN or infinite; every option needs a finite one")
        probs = softmax(wide if self.document.temperature == 1 else wide / self.document.temperature, counts)
        scores = self._scorer(probs, None, **self._parameters)
        threshold = self._thresholds(len(rows), subject)
        sets = (scores <= threshold[:, None]) & has_option
        if self.document.empty == "top1" and len(rows):
            sets[np.arange(len(rows)), top_option(probs)] = True
        return Judged(sets, probs, scores, threshold)

    def decisions(self, judged: Judged) -> AnyArray:
        """Return (question,) the decision for each judged question."""
        return self._decide(judged.sets.sum(axis=1), np.nanmax(judged.probs, axis=1, initial=0.0))

    def _decide(self, size: IntArray, top: FloatArray) -> AnyArray:
        up_to, alone = self.document.ask_again_up_to, self.document.alone
        decisions = np.where((size > up_to) | (up_to == 1), REVIEW, ASK_AGAIN)
        decisions = np.where(size == 0, ABSTAIN, decisions)
        return np.where(size == 1 if alone is None else top >= alone.threshold, ANSWER, decisions)

    def cost_per_1000(self, shares: Mapping[str, float], share_wrong: float) -> float:
        """Return the mean cost of 1,000 questions at the predictor's prices; NaN without prices.

        shares : share of the questions with each decision.  share_wrong : of those answered without review and wrongly.
        """
        prices = self.document.value["rules"]["prices"]
        if prices is None:
            return float("nan")
        each = sum(float(prices[DECISION_PRICES[decision]]) * shares[decision] for decision in DECISIONS)
        return 1000 * (each + float(prices["wrong"]) * share_wrong)

    def _counts(self, n_rows: int, width: int, n_options: int | Sequence[int] | IntArray | None) -> IntArray:
        most = len(self.letters)
        if n_options is None:
            if width != most:
                raise UsageError(f"rows have {width} logits, the predictor {most} options ({', '.join(self.letters)}); say n_options")
            return np.full(n_rows, most)
        counts = np.broadcast_to(np.asarray(n_options), (n_rows,)) if np.ndim(n_options) == 0 else np.asarray(n_options)
        if counts.shape != (n_rows,) or counts.dtype.kind not in "iu":
            raise UsageError(f"n_options has shape {counts.shape}, type {counts.dtype}; expected a whole number for each of {n_rows} rows")
        wrong = (counts < FEWEST) | (counts > min(most, width))
        if wrong.any():
            row = int(wrong.argmax())
            raise UsageError(f"row {row} has {counts[row]} options; expected {FEWEST} to {min(most, width)}")
        return counts

    def _thresholds(self, n_rows: int, subject: str | Sequence[str] | None) -> FloatArray:
        if not self.subjects:
            if subject is not None:
                raise UsageError("the predictor has one threshold for all questions; leave the subject out")
            return np.full(n_rows, self._by_subject[None])
        if subject is None:
            raise UsageError(f"the predictor has a threshold per subject; say of which each question is: {', '.join(self.subjects)[:160]}")
        names = [subject] * n_rows if isinstance(subject, str) else list(subject)
        if len(names) != n_rows:
            raise UsageError(f"{len(names)} subjects for {n_rows} rows")
        if unknown := [name for name in names if name not in self._by_subject]:
            raise UsageError(f"subject {unknown[0]!r:.80} has no threshold; known: {', '.join(self.subjects)[:160]}")
        return np.array([self._by_subject[name] for name in names], dtype=np.float64)


def _rows(logits: Any) -> tuple[AnyArray, bool]:
    """Return logits as (question, option), and whether they were a single row."""
    try:
        rows = np.asarray(logits, dtype=np.float64, order="C")
    except (TypeError, ValueError) as error:
        raise UsageError("logits are no rectangle of numbers; expected (option,) or (question, option)") from error
    if rows.ndim not in (1, 2):
        raise UsageError(f"logits have shape {rows.shape}; expected (option,) or (question, option)")
    return (rows[None], True) if rows.ndim == 1 else (rows, False)
