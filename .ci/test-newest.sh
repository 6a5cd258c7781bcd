# Resolve every dependency without constraints, in an environment of its own, and run the fast tests with the interpreter $1:
# a release that breaks us is seen here before a user meets it. torch alone is pinned, since pip would bring gigabytes of CUDA.
set -e
venv=.venv-newest
[ -e "$venv/bin/python" ] || "$1" -m venv "$venv"
grep '^torch==' constraints.txt > "$venv/torch.txt"
"$venv/bin/pip" install --quiet --disable-pip-version-check --constraint "$venv/torch.txt" torch
"$venv/bin/pip" install --quiet --disable-pip-version-check --upgrade --upgrade-strategy eager --constraint "$venv/torch.txt" \
  --editable '.[producer,dev]'
"$venv/bin/pip" list --disable-pip-version-check
PATH=$PWD/$venv/bin:$PATH "$venv/bin/python" -m pytest -n 2 --dist loadfile -m 'not slow'
