# Test --track against an MLflow server, wandb and trackio with the interpreter $1, in an environment of its own: MLflow's server pins an
# older pyarrow than the other tests use.
set -e
venv=.venv-trackers
if [ ! -e "$venv/.ready" ] || [ pyproject.toml -nt "$venv/.ready" ] || [ constraints.txt -nt "$venv/.ready" ]; then
  "$1" -m venv "$venv"
  grep -v '^pyarrow=' constraints.txt > "$venv/constraints.txt"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --constraint "$venv/constraints.txt" \
    --editable '.[mlflow,wandb,trackio]' mlflow==3.17.2 'pytest>=8.3' 'hypothesis>=6.130'
  touch "$venv/.ready"
fi
HEDGEMARK_TRACKERS=1 "$venv/bin/python" -m pytest -m "not producer" tests/studies/test_analyzer_tracking.py tests/studies/test_analyzer_tracking_server.py
