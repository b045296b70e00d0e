# `make help` lists the targets. Every target that needs the environment creates it first.
.DEFAULT_GOAL := help
.PHONY: help demo bench bench-answer bench-compile bench-gpu gpu-check gpu-wheels test test-slow test-cluster test-long test-oldest same-bits mutants walks optimizer-table docs lint types \
	reports-check format environment packages pins clean

BIN := .venv/bin
OLDEST := .venv-oldest
STAMP := .venv/.installed
ARGS ?=
PYTEST = BENCHKIT_UV=$(UV) OMP_NUM_THREADS=1 OMP_WAIT_POLICY=passive $(RUN) $(1)/python -m pytest --timeout 600 $(2) $(ARGS)
AT_ONCE := -n logical --maxprocesses 4 --dist worksteal
# Absolute, because tests run it from other folders.
UV = $(shell command -v uv >/dev/null && uv --version >/dev/null 2>&1 && echo uv || echo $(CURDIR)/$(BIN)/uv)

export PYTHON

# Every process would compile PyTorch's sources anew, which takes longer than to import it.
unexport PYTHONDONTWRITEBYTECODE

# Homebrew's libraries are not on the loader's path of every Python for macOS.
ifeq ($(shell uname),Darwin)
RUN := DYLD_FALLBACK_LIBRARY_PATH="$${DYLD_FALLBACK_LIBRARY_PATH:-/opt/homebrew/lib:/usr/local/lib:/usr/lib}"
endif

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-15s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: $(STAMP) ## sweep the built-in quickstart study and report it as HTML and PDF, into reports/
	$(RUN) $(BIN)/benchkit sweep quickstart
	@if .ci/system-libraries; then format=all; else format=html,figures; fi; \
		echo benchkit report quickstart --format $$format --out reports; \
		$(RUN) $(BIN)/benchkit report quickstart --format $$format --out reports

bench: $(STAMP) ## measure benchkit beside its peers and write reports/benchmarks.*; ARGS="--device cuda" on a GPU
	@.ci/system-libraries || true
	@$(UV) pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[bench]' || echo "Lightning and fastai are left out"
	$(RUN) $(BIN)/python tests/peers/bench.py --out reports $(ARGS)

bench-gpu: $(STAMP) ## what only a GPU can tell: its tests, the benchmark on it, streamed images, fused trials
	$(RUN) $(BIN)/python tests/peers/devices.py cuda
	$(RUN) $(BIN)/python -m pytest -m gpu --timeout 600
	$(MAKE) bench ARGS="--device cuda $(ARGS)"
	$(RUN) $(BIN)/python tests/peers/bench_stream.py --device cuda --images 60000 --limit 1GB
	$(RUN) $(BIN)/python tests/peers/bench_fused.py --device cuda

bench-answer: $(STAMP) ## measure the time until a study's ranking is decided, into the same report; ARGS="--hours 0.2" a piece
	$(RUN) $(BIN)/python tests/peers/bench_answer.py $(ARGS)

bench-compile: $(STAMP) ## measure what compiling a step takes and gives, into the table by which train.compile = auto is decided
	$(RUN) $(BIN)/python tests/peers/bench_compile.py --threads 1 --models resnet mlp --table "$${NOTE:-$$(date '+%d %B %Y')}" $(ARGS)

# Without an environment of its own: with the python3 that is there, such as one that holds a GPU's PyTorch.
gpu-check: ## five minutes on a machine with a GPU and any python3 with PyTorch; its page is build/gpu-check/page.md
	python3 tests/peers/gpu_check.py $(ARGS)

GPU_SITE := alembic altair attrs cmaes colorlog jsonschema jsonschema-specifications mako msgspec narwhals optuna pypdf referencing rpds-py \
	sqlalchemy
gpu-wheels: $(STAMP) ## gather what gpu-check needs beside PyTorch, timm and SciPy, for CPython 3.12 on x86-64 Linux
	rm -rf build/gpu-site
	$(UV) pip install --quiet --only-binary :all: --no-deps --python-version 3.12 --python-platform x86_64-manylinux_2_28 \
		--target build/gpu-site -c constraints.txt $(GPU_SITE)
	@du -sm build/gpu-site | awk '{ print "build/gpu-site: " $$1 " MiB, below 60" } $$1 >= 60 { exit 1 }'

test: $(STAMP) ## run the tests but for the long ones; ARGS="-k norms" goes to pytest
	@.ci/system-libraries || true
	$(call PYTEST,$(BIN),$(AT_ONCE) -m "not slow and not long")

test-slow: $(STAMP) ## run the long ones
	@.ci/system-libraries || true
	$(call PYTEST,$(BIN),$(AT_ONCE) -m "slow and not long")

# Two processes, so that all tests of one kind share one cluster: they wait more than they compute. Of files that have one alone,
# since to collect all of them takes longer than some tests do.
test-cluster: $(STAMP) ## run those that need Ray, PostgreSQL or Slurm, after installing these where it may
	@.ci/cluster-software $(UV)
	$(call PYTEST,$(BIN),-n 2 --dist loadgroup -m "(ray or postgres or slurm) and not long") \
		$$(grep -lE 'mark\.(ray|postgres|slurm)\b' tests/test_*.py)

test-long: $(STAMP) ## run what only repetition and real outages show: an hour or more
	@.ci/cluster-software $(UV)
	$(call PYTEST,$(BIN),--timeout 7200 -m long)

# Old packages use what newer ones beneath them deprecate.
test-oldest: $(STAMP) ## run them with the oldest packages that pyproject.toml allows, in .venv-oldest; PYTHON=... on another Python
	@.ci/system-libraries || true
	$(UV) venv --quiet --clear --python $(or $(PYTHON),$(BIN)/python) $(OLDEST)
	$(UV) pip install --quiet --only-binary :all: --resolution lowest-direct --python $(OLDEST)/bin/python -e '.[dev]'
	$(call PYTEST,$(OLDEST)/bin,$(AT_ONCE) -m "not long") -W ignore::DeprecationWarning

same-bits: $(STAMP) ## train ten small studies by the commit OLD=... and by this tree, and compare them to the bit
	$(RUN) $(BIN)/python tests/peers/same_bits.py $(OLD) $(ARGS)

mutants: $(STAMP) ## change single places of the code and see whether a test notices; ARGS="--sample 200 --seed 27"
	@$(UV) pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[mutants]'
	$(RUN) $(BIN)/python tests/peers/mutants.py $(ARGS)

docs: $(STAMP) ## build the documentation into docs/_build; what is wrong in it is an error
	@$(UV) pip install --quiet --python $(BIN)/python -c constraints.txt -e '.[docs]'
	$(RUN) $(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build

optimizer-table: $(STAMP) ## try every optimizer of timm and PyTorch, and write which are offered and why others are not
	$(RUN) $(BIN)/python tests/peers/optimizer_table.py
	$(BIN)/ruff format --quiet plugins/benchkit_optimizers

walks: $(STAMP) ## count the files and functions on the way to five answers; ARGS=--files lists them
	$(RUN) PYTHONPATH=tests $(BIN)/python tests/walks.py $(ARGS)

lint: $(STAMP) ## check the format and lint with ruff
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .

types: $(STAMP) ## check the types with mypy, strict
	$(BIN)/mypy

reports-check: $(STAMP) ## name the reports made by other templates than today's; ARGS=--strict fails then
	$(RUN) $(BIN)/python tests/peers/reports_check.py $(ARGS)

format: $(STAMP) ## format with ruff and apply its safe fixes
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

environment: $(STAMP) ## create .venv with the pinned packages

$(STAMP): pyproject.toml constraints.txt .ci/environment
	@.ci/environment
	@touch $@
	@echo "benchkit: .venv is ready; for benchkit on the PATH: . .venv/bin/activate" >&2

packages: $(STAMP) ## build sdist and wheel into dist/ and hold them to what those who install them need
	UV=$(UV) .ci/packages dist

pins: $(STAMP) ## choose the newest allowed versions anew and pin them in constraints.txt
	$(UV) pip compile --quiet --upgrade --universal --python-version 3.11 --extra dev --extra hf --extra ray --extra postgres --extra lite0 --extra onnx --extra docs --extra tables --extra mlflow --extra notify --extra tensorboard --extra wandb \
		--strip-extras --no-annotate --no-header --no-emit-index-url --output-file constraints.txt pyproject.toml

clean: ## remove the environment, caches and build outputs; keeps benchkit-runs/ and reports/
	rm -rf .venv $(OLDEST) build dist .pytest_cache .ruff_cache .mypy_cache benchkit.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
