# Download into the folder $2, with the interpreter $1, what a GPU machine without network lacks for `make device-check`, as wheels for
# Python 3.12 on x86-64 Linux in the tested versions, and print their size.
set -e
cd "$(dirname "$0")/.."
platforms=""
for tag in 2_35 2_34 2_31 2_28 2_27 2_24 2_17 2_12 2_5; do platforms="$platforms --platform manylinux_${tag}_x86_64"; done
rm -rf "$2"
# shellcheck disable=SC2086 # one option and its value per platform
"$1" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: --python-version 3.12 --implementation cp \
  $platforms --platform manylinux2014_x86_64 --platform manylinux1_x86_64 --dest "$2" --requirement .ci/device-wheels.txt
du -cm "$2"/*.whl | sort -n
