# Compare with other conformal libraries, in an environment of their own with the interpreter $1; further arguments go to the bench.
set -e
venv=.venv-peers
if [ ! -e "$venv/.ready" ] || [ pyproject.toml -nt "$venv/.ready" ] || [ tests/peers-requirements.txt -nt "$venv/.ready" ]; then
  "$1" -m venv "$venv"
  pip="$venv/bin/pip install --quiet --disable-pip-version-check --constraint constraints.txt"
  $pip torch==2.13.0
  $pip --editable '.[test,fast]' --requirement tests/peers-requirements.txt
  $pip --no-deps torchcp==1.2.1 # one of its requirements, torchsort, builds only with a compiler and serves no score used here
  touch "$venv/.ready"
fi
shift
HEDGEMARK_PEERS=1 "$venv/bin/python" -m pytest tests/numbers/test_analyzer_peers.py tests/numbers/test_analyzer_drawn.py \
  tests/stores_at_work/test_store_import_from_lm_eval.py tests/prompts_and_models/test_producer_lm_eval_tasks.py
"$venv/bin/python" -m analyzer.bench "$@"
