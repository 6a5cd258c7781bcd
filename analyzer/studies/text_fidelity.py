"""`analyze text`: how far compressed models are from their dense model on running text, token by token.

In: the runs of `produce --text`.  Out: one record per run. The tokens of a document depend on each other, so documents are the independent
units of all intervals; with one document there is none.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from analyzer.measure.records import Record, interval_fields
from analyzer.runs.loading import Runs, reading_order
from analyzer.stats.arrays import AnyArray
from analyzer.stats.clusters import Clusters, clusters_of
from analyzer.stats.estimate import Estimate, mean
from schemas.errors import RunNotFoundError
from schemas.run import DENSE, Run, TokenArrays

SAME = ("model", "task", "items_hash", "tokens_hash", "weights_hash", "dtype", "backend")  # of a run and its dense run
QUANTILES = {"kl_median": 0.5, "kl_99": 0.99}
ONE_DOCUMENT = "one document: its tokens depend on each other, so there are no intervals"


def text_fidelity(runs: Runs) -> list[Record]:
    """Return one record per run over a text.

    kl               : mean KL(dense || this model) over the full vocabulary, nats per token; null for dense runs.
    kl_median, kl_99 : quantiles over tokens.
    same_top         : share of tokens at which both have the same most likely token.
    perplexity       : exp of minus the mean log-probability per token.
    perplexity_ratio : perplexity over the dense run's, paired by token.
    Raises RunNotFoundError if no selected run is over a text.
    """
    rows = sorted((row for row in runs.rows if row.get("n_tokens")), key=reading_order)
    if not rows:
        raise RunNotFoundError("no selected run is over a text; make some with produce --text")
    dense_rows = {_identity(row): row for row in rows if row["method"] == DENSE}
    dense_run: dict[str, Run] = {}
    records = []
    for row in rows:
        partner = dense_rows.get(_identity(row))
        if partner and partner["name"] not in dense_run:
            dense_run = {partner["name"]: runs.reader.run(partner["name"])}
        run = dense_run.get(row["name"]) or runs.reader.run(row["name"])
        records.append(_record(row, run, dense_run[partner["name"]] if partner else None, runs.reader.snapshot))
    return records


def _identity(row: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(row[name] for name in SAME)


def _record(row: Mapping[str, Any], run: Run, dense: Run | None, snapshot: str) -> Record:
    tokens = run.tokens
    assert tokens is not None, "the catalog says that the run has tokens"
    documents = _documents(tokens)
    compressed = row["method"] != DENSE
    record: Record = {name: row[name] for name in ("model", "method", "level", "task")}
    record |= {"n_tokens": int(tokens.offsets[-1]), "n_documents": len(tokens.offsets) - 1}
    kl, same = _mean(tokens.kl, documents, least=0.0), _mean(tokens.same_top, documents, share=True)
    record |= _fields("kl", kl if compressed else None)
    record |= {name: float(np.quantile(tokens.kl, q)) if compressed else None for name, q in QUANTILES.items()}
    record |= _fields("same_top", same if compressed else None)
    record |= _exponential("perplexity", _mean(-tokens.logprob, documents))
    paired = dense.tokens if dense is not None and compressed else None
    record |= _exponential("perplexity_ratio", _mean(_difference(paired, tokens), documents) if paired else None)
    note = ONE_DOCUMENT if record["n_documents"] == 1 else None
    return record | {"note": note, "unreliable": None, "run": row["name"], "snapshot": snapshot}


def _documents(tokens: TokenArrays) -> Clusters:
    counts = np.diff(tokens.offsets)
    return clusters_of(np.repeat(np.arange(len(counts)), counts), len(counts))


def _difference(dense: TokenArrays, tokens: TokenArrays) -> AnyArray:
    return dense.logprob.astype(np.float64) - tokens.logprob


def _mean(values: AnyArray, documents: Clusters, *, share: bool = False, least: float = -math.inf) -> Estimate:
    return mean(np.asarray(values, dtype=np.float64), documents, share=share, least=least)


def _fields(name: str, estimate: Estimate | None) -> Record:
    return dict.fromkeys((name, f"{name}_low", f"{name}_high")) if estimate is None else interval_fields(name, estimate)


def _exponential(name: str, estimate: Estimate | None) -> Record:
    """Return exp of an estimate; its interval is exp of the estimate's."""
    fields = _fields(name, estimate)
    return {field: None if value is None else math.exp(value) for field, value in fields.items()}
