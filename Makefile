# Two commands matter: `make demo` and `make test`. Each sets up all it needs on a machine with Python 3.11+.
PYTHON ?= python3
# Test processes at a time; a file's tests stay in one of them.
WORKERS ?= 2
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# PyTorch is large and optional: its tests have an environment of their own.
TORCH ?= torch==2.13.0
TORCH_VENV := .venv-torch
TORCH_READY := $(TORCH_VENV)/.ready
IMAGE := deployments/kubernetes
# Bytecode must be written: without it every process compiles every module again.
unexport PYTHONDONTWRITEBYTECODE
export PYTHONUNBUFFERED := 1

.DEFAULT_GOAL := help
.PHONY: help setup demo dev test test-slow test-torch check format benchmarks schema lock wheel clean

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 14

setup: $(READY)  ## a virtual environment with the locked dependencies

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or newer is needed; this is " + sys.version if sys.version_info < (3, 11) else 0)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(BIN)/python -m compileall -q ml_assets resources sensors deployments
	touch $(READY)

demo: $(READY)  ## land real flights, train, evaluate and promote, through the Dagster engine
	$(BIN)/ml-assets demo

dev: $(READY)  ## the Dagster UI and the MLflow UI on the demo's state
	$(BIN)/ml-assets dev

test: $(READY)  ## the tests (under ten minutes on two cores)
	$(BIN)/python -m pytest -q -m "not slow" -n $(WORKERS) --dist loadfile

test-slow: $(READY)  ## the slower tests: a year of models, the browser
	$(BIN)/python -m pytest -q -m slow -n $(WORKERS) --dist loadfile --no-loadscope-reorder

test-torch: $(TORCH_READY)  ## the guide to PyTorch, with PyTorch in an environment of its own
	$(TORCH_VENV)/bin/python -m pytest -q tests/integration/test_pytorch.py

$(TORCH_READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(TORCH_VENV)
	$(TORCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(TORCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	$(TORCH_VENV)/bin/python -m pip install --quiet --disable-pip-version-check '$(TORCH)'
	touch $(TORCH_READY)

check: $(READY)  ## format, lint, types, layers, every pipeline and code location
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/pyright
	$(BIN)/lint-imports
	$(BIN)/ml-assets validate --deep
	$(BIN)/ml-assets policy check
	$(BIN)/dagster definitions validate -w workspace.yaml

format: $(READY)  ## rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

benchmarks: $(READY)  ## all benchmarks; ratios measured in one run each
	for file in tests/benchmarks/bench_*.py; do $(BIN)/python -m tests.benchmarks.$$(basename $$file .py) || exit 1; done

schema: $(READY)  ## write the JSON schema of a pipeline's YAML beside the deployments
	$(BIN)/ml-assets schema --output deployments/pipeline.schema.json

lock:  ## write requirements.lock and the image's locks again, with hashes and without an index address
	$(PYTHON) -m pip install --quiet uv
	$(PYTHON) -m uv pip compile pyproject.toml --extra dev --extra examples --extra postgres --generate-hashes \
	  --python-version 3.11 --no-strip-extras --no-header --quiet --output-file requirements.lock
	$(PYTHON) -m uv pip compile pyproject.toml --extra postgres --extra kubernetes --extra s3 --extra lightgbm \
	  --extra xgboost --constraint requirements.lock --generate-hashes --python-version 3.11 --no-strip-extras \
	  --no-header --quiet --output-file $(IMAGE)/requirements.lock
	echo hatchling | $(PYTHON) -m uv pip compile - --constraint requirements.lock --generate-hashes \
	  --python-version 3.11 --no-annotate --no-header --quiet --output-file $(IMAGE)/build.lock

wheel: $(READY)  ## build the wheel into dist/
	$(BIN)/python -m build --wheel --no-isolation --outdir dist .

clean:  ## remove what the demo and the tests made
	rm -rf state dist .pytest_cache .hypothesis .ruff_cache
