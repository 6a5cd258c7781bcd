"""Sentences below a table without which its figures are easily misread; each stands only where the table shows what it is about."""

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from analyzer.measure.records import Record
from analyzer.tables.numbers import fixed

KL = "KL measures how much the answers changed; whether for the worse, the change of accuracy shows."
RECALIBRATED = "Figures called recalibrated have a threshold made again on the target itself; the others keep the other run's threshold."
TEMPERED = "The sets are made of recalibrated probs; nll, brier and ece beside them are those of the raw probs."
HOLM = "p-values are made stricter for the number of comparisons in the table (Holm)."
FRONTIER = (
    "Inconclusive: too few items to tell whether a run with no more bytes is as good. "
    "To be on the frontier is no release decision: `analyze gate` says whether limits are kept."
)
ONE_PROMPT = "All figures are of one prompt; another may move them more than compression does. Compare several with `--prompt`."
MOST_NOTED = 5  # different notes that a table tells


def cautions(records: Sequence[Record], titles: Sequence[str]) -> list[str]:
    """Return the sentences that belong below a table with these records and columns."""
    return [*without_interval(records), *dependent(records), *of_columns(records, titles), *noted(records), *of_prompts(records)]


def without_interval(records: Sequence[Record]) -> list[str]:
    """Return why set sizes have no interval, each reason once."""
    notes = dict.fromkeys(record["set_size_note"] for record in records if record.get("set_size_note"))
    return [f"{note[:1].upper()}{note[1:]}." for note in notes]


def dependent(records: Sequence[Record]) -> list[str]:
    """Return which items count as one unit, and by how much that enlarges the variance of accuracy; once per task."""
    first: dict[tuple[Any, ...], Record] = {}
    for record in records:
        if record.get("n_clusters") is not None and min(record["n_clusters"], record["n_questions"]) < record["n_items"]:
            first.setdefault(_clustering(record), record)
    effects = {key: [r["design_effect"] for r in records if _clustering(r) == key and r.get("design_effect") is not None] for key in first}
    return [_clusters(record, effects[key]) for key, record in first.items()]


def of_columns(records: Sequence[Record], titles: Sequence[str]) -> list[str]:
    """Return how figures of columns with these titles may be misread: KL, recalibrated thresholds, probs after temperature scaling."""
    sentences = []
    if any("KL" in title for title in titles) and any(record.get("kl") is not None for record in records):
        sentences.append(KL)
    if any(title.startswith("p ") for title in titles) and any(record.get("accuracy_p_holm") is not None for record in records):
        sentences.append(HOLM)
    if "dominated by" in titles and any(record["finding"] == "inconclusive" for record in records):
        sentences.append(FRONTIER)
    if records and any("recalibrated" in title for title in titles):
        sentences.append(RECALIBRATED)
    if any(record.get("reliability", "none") != "none" for record in records):
        sentences.append(TEMPERED)
    return sentences


def noted(records: Sequence[Record]) -> list[str]:
    """Return what was noted when runs were made (doubtful items, truncated prompts, fallbacks), each note once, with its runs."""
    runs: dict[str, dict[str, None]] = {}
    for record in records:
        if record.get("noted"):
            runs.setdefault(record["noted"], {})[record["run"]] = None
    sentences = [f"Noted when {_named(list(names))} made: {note}." for note, names in runs.items()]
    more = len(sentences) - MOST_NOTED
    return sentences if more <= 0 else [*sentences[:MOST_NOTED], f"{more} more runs have notes of their own; `store show RUN` prints them."]


def _named(names: Sequence[str]) -> str:
    return f"{names[0]} was" if len(names) == 1 else f"{names[0]} and {len(names) - 1} more were"


def _clustering(record: Record) -> tuple[Any, ...]:
    return record.get("task"), record.get("n_items"), record.get("n_clusters"), record.get("cluster")


def _clusters(record: Record, effects: Sequence[float]) -> str:
    n_clusters, cluster = record["n_clusters"], record.get("cluster")
    if n_clusters == 1:
        return f"All {record['n_items']:,} items of {record['task']} are one cluster, so figures have no intervals; two are needed."
    if n_clusters == record["n_items"]:
        questions = f"{record['n_items']:,} items of {record['task']} ask {record['n_questions']:,} different questions"
        return f"{questions}; every item counts as an independent draw (--cluster {cluster}), also one that repeats another."
    asked = f"ask {n_clusters:,} different questions" if cluster == "question" else f"form {n_clusters:,} clusters (--cluster {cluster})"
    low, high = (fixed(end(effects), 2) if effects else "" for end in (min, max))
    times = f": the variance of accuracy is {low if low == high else f'{low} to {high}'} times that of independent items" if effects else ""
    said = f"{record['n_items']:,} items of {record['task']} {asked}, which intervals and tests count as one unit each{times}."
    drawn = " If each item was drawn independently of the others, `--cluster item` counts every one." if cluster == "question" else ""
    return said + drawn


def of_prompts(records: Sequence[Record]) -> list[str]:
    """Return how far figures differ between the prompts of one run, or that there is only one prompt; only where figures of runs stand."""
    records = [record for record in records if record.get("set_size") is not None and "accuracy" in record]
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
