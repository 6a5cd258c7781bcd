"""Sentences below a table without which its figures are easily misread; each stands only where the table shows what it is about."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from analyzer.measure.records import Record
from analyzer.tables.numbers import fixed

KL = "KL measures how much the answers changed; whether for the worse, the change of accuracy shows."
RECALIBRATED = "Figures called recalibrated have a threshold made again on the target itself; the others keep the other run's threshold."
TEMPERED = "The sets are made of recalibrated probs; nll, brier and ece beside them are those of the raw probs."
ONE_PROMPT = "All figures are of one prompt; another may move them more than compression does. Compare several with `--prompt`."
MOST_NOTED = 5  # different notes that a table tells


def cautions(records: Sequence[Record], titles: Sequence[str]) -> list[str]:
    """Return the sentences that belong below a table with these records and columns."""
    notes = list(dict.fromkeys(record["set_size_note"] for record in records if record.get("set_size_note")))
    sentences = [f"{note[:1].upper()}{note[1:]}." for note in notes]
    sentences += list(dict.fromkeys(filter(None, map(_clusters, records))))
    if "KL" in titles and any(record.get("kl") is not None for record in records):
        sentences.append(KL)
    if "recalibrated" in titles:
        sentences.append(RECALIBRATED)
    if any(record.get("reliability", "none") != "none" for record in records):
        sentences.append(TEMPERED)
    sentences += noted(records)
    return [*sentences, *_prompts([record for record in records if record.get("set_size") is not None and "accuracy" in record])]


def noted(records: Sequence[Record]) -> list[str]:
    """Return what was noted when runs were made (doubtful items, truncated prompts, fallbacks), each note once, with its runs."""
    runs: dict[str, dict[str, None]] = {}
    for record in records:
        if record.get("noted"):
            runs.setdefault(record["noted"], {})[record["run"]] = None
    told = [f"Noted when {_named(list(names))} made: {note}." for note, names in runs.items()]
    more = len(told) - MOST_NOTED
    return told if more <= 0 else [*told[:MOST_NOTED], f"{more} more runs have notes of their own; `store show RUN` prints them."]


def _named(names: Sequence[str]) -> str:
    return f"{names[0]} was" if len(names) == 1 else f"{names[0]} and {len(names) - 1} more were"


def _clusters(record: Record) -> str | None:
    n_clusters, cluster = record.get("n_clusters"), record.get("cluster")
    if n_clusters is None or n_clusters == record["n_items"]:
        return None
    if n_clusters == 1:
        return f"All {record['n_items']:,} items of {record['task']} are one cluster, so figures have no intervals; two are needed."
    asked = f"ask {n_clusters:,} different questions" if cluster == "question" else f"form {n_clusters:,} clusters (--cluster {cluster})"
    effect = record.get("design_effect")
    times = "" if effect is None else f": the variance of accuracy is {fixed(effect, 2)} times that of independent items"
    return f"{record['n_items']:,} items of {record['task']} {asked}, which intervals and tests count as one unit each{times}."


def _prompts(records: Sequence[Record]) -> list[str]:
    """Say how far figures differ between the prompts of one run, or that there is only one prompt."""
    prompts = {record["prompt"] for record in records}
    if not prompts or any("+" in prompt for prompt in prompts):
        return []
    if len(prompts) == 1:
        return [ONE_PROMPT]
    groups = [list(group) for _, group in groupby(sorted(records, key=_run), key=_run)]
    size, accuracy = (max(_spread(group, name) for group in groups) for name in ("set_size", "accuracy"))
    return [
        f"Between {len(prompts)} prompts the accuracy of one run differs by up to {fixed(100 * accuracy, 1)} points, "
        f"its set size by up to {fixed(size, 2)} options."
    ]


def _run(record: Record) -> tuple[Any, ...]:
    return tuple(str(record.get(name)) for name in ("model", "method", "level", "task", "scorer", "alpha", "group"))


def _spread(records: Sequence[Record], name: str) -> float:
    values = [record[name] for record in records if record[name] is not None]
    return max(values) - min(values) if values else 0.0
