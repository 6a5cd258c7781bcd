#!/bin/sh
# From a compressed model to a threshold that is watched, on the embedded model ref-m; about a minute. Run it in an empty folder.
set -eu

# 2,000 questions to calibrate on, and as many from the same urns, drawn by another seed, that stand for production.
python - <<'PYTHON'
import json
from importlib import import_module
from pathlib import Path
import numpy as np

task = import_module("producer.tasks.urn")

def write(name, seed):
    rows = [item.model_dump(exclude_defaults=True) for item in task.urn(2000, seed)]
    Path(name).write_text("".join(json.dumps(row) + "\n" for row in rows))

write("questions.jsonl", 1)
write("live.jsonl", 2)
task.SHARES = np.random.default_rng(8).dirichlet(np.ones(8), 6)  # the urns are filled anew: the model knows nothing of them
write("changed.jsonl", 3)
PYTHON

produce --model ref-m --method dense --method rtn --level w4a16-g32 --task questions.jsonl --store runs --save compressed
analyze gate --store runs --method rtn --limit accuracy_loss=0.05 --limit set_size_growth=0.3
analyze calibrate --store runs --method rtn --task questions --alpha 0.1 --expect "option_tokens= A, B, C, D, E, F" --out predictor.json

# What a server would log: the logits of the saved checkpoint for the live questions, and the answers once they are known.
produce --model compressed --method checkpoint --task live.jsonl --task changed.jsonl --store production
python - <<'PYTHON'
import numpy as np
import polars as pl
import store
from analyzer.predictor import Predictor

predictor = Predictor.load("predictor.json")
for row in store.open_reader("production").catalog.to_dicts():
    run = store.open_dataset("production", row["name"])
    logits, answer = run["logits"].to_numpy(), run["answer"].to_numpy()
    covered = predictor.predict(logits)[np.arange(len(answer)), answer].sum()
    print(f"{row['task']}: {covered} of {len(answer)} answers are in their sets")
    columns = {f"logit_{letter}": logits[:, i] for i, letter in enumerate(predictor.letters)}
    letters = [predictor.letters[i] for i in answer]
    ids = [f"{row['task']}-{i}" for i in range(len(answer))]
    pl.DataFrame({"id": ids, **columns, "answer": letters, "logsumexp": run["logsumexp"].to_numpy()}).write_parquet(f"{row['task']}.parquet")
PYTHON

analyze predict --predictor predictor.json --logits live.parquet > decisions.csv
analyze monitor --predictor predictor.json --log live.parquet --state watch.json || test $? -eq 3 # no alarm; 3: too few answers to be sure
analyze monitor --predictor predictor.json --log changed.parquet --state watch.json || test $? -eq 1 # the alarm
