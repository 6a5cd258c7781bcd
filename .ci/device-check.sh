# Check the device with the interpreter $1; further arguments go to `python -m producer.bench.device_check`. What lies in .whl is installed
# beside the interpreter's own packages first, into a folder that is deleted afterwards. Needs no network.
cd "$(dirname "$0")/.." || exit 5
python=$1
shift
site=$(mktemp -d)
trap 'rm -rf "$site"' EXIT
if ls .whl/*.whl >/dev/null 2>&1; then
  "$python" -m pip install --quiet --disable-pip-version-check --no-index --no-deps --no-compile --no-cache-dir --target "$site" .whl/*.whl || exit 5
  export PYTHONPATH="$site${PYTHONPATH:+:$PYTHONPATH}"
fi
"$python" -m producer.bench.device_check "$@"
