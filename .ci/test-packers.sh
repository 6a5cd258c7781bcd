# Test the reading of GPTQ and AWQ against AutoGPTQ's and AutoAWQ's own packers, whose packages are unpacked beside each other and not installed.
# $1: the environment with Hedgemark; the packages stay in its folder `packers`.
set -e
folder=$1/packers
if [ ! -d "$folder/awq" ]; then
  rm -rf "$folder"
  "$1/bin/pip" download --quiet --no-deps --dest "$folder" --only-binary :all: --python-version 3.11 --platform manylinux_2_17_x86_64 auto-gptq==0.7.1
  "$1/bin/pip" download --quiet --no-deps --dest "$folder" autoawq==0.2.9
  "$1/bin/python" -m zipfile -e "$folder"/auto_gptq-*.whl "$folder"
  tar -xzf "$folder"/autoawq-*.tar.gz -C "$folder" --strip-components 1
fi
HEDGEMARK_PACKERS=$folder "$1/bin/python" -m pytest tests/prompts_and_models/test_producer_peer_packers.py
