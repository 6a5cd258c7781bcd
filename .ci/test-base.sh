# Test schemas, store and analyzer with the interpreter $1 in an environment of its own, which has no torch;
# with further words, run that script with its arguments there instead. $LEFT_OUT is a mark of tests that are not run.
set -e
minor=$("$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
venv=.venv-$minor
if [ ! -e "$venv/.ready" ] || [ pyproject.toml -nt "$venv/.ready" ] || [ constraints.txt -nt "$venv/.ready" ]; then
  "$1" -m venv "$venv"
  "$venv/bin/pip" install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt --editable '.[test]'
  "$venv/bin/python" -m compileall -qq -j 0 "$venv/lib" || true # by every core, where pip would use one
  touch "$venv/.ready"
fi
echo "== Python $minor"
PATH=$PWD/$venv/bin:$PATH
HEDGEMARK_PEER_PYTHON=$PWD/.venv/bin/python # with Icechunk 1 there and 2 here, each reads what the other wrote
export PATH HEDGEMARK_PEER_PYTHON
shift
[ $# = 0 ] || exec "$venv/bin/python" "$@"
marks='not slow and not producer and not browser and not simulation'"${LEFT_OUT:+ and not $LEFT_OUT}"
"$venv/bin/python" -m pytest -n 2 --dist loadfile -m "$marks" --ignore-glob='*test_producer_*' \
  --ignore=tests/promises/test_contributing.py # the recipes say nothing of the interpreter
