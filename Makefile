# Each target sets up .venv as it needs; repeating it is instant until pyproject.toml or constraints.txt changes.
#
#   make demo     the whole system on synthetic videos, offline; output in demo/
#   make test     the tests, without those marked slow, real or browser
#   make lint     ruff, the import contracts, mypy on the public API
#   make docs     the documentation; output in site/
#   make bench    the benchmarks, each compared with a named peer
#   make setup    .venv with every extra
#
# Another interpreter: make setup PYTHON=python3.12

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --disable-pip-version-check --no-input --constraint constraints.txt

# Spinning idle threads of torch make two cores many times slower than one.
export OMP_WAIT_POLICY := PASSIVE
export KMP_BLOCKTIME := 0
export HF_HUB_DISABLE_TELEMETRY := 1
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test lint docs bench setup
.DEFAULT_GOAL := test

demo: export HF_HUB_OFFLINE := 1
demo: $(VENV)/.base
	$(BIN)/longvale demo --output demo

test: export HF_HUB_OFFLINE := 1
test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist worksteal -m "not slow and not real and not browser" $(PYTEST_ARGS)

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python -m mypy

docs: export NO_MKDOCS_2_WARNING := 1
docs: $(VENV)/.docs
	$(BIN)/python -m mkdocs build --strict

bench: $(VENV)/.all
	set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

setup: $(VENV)/.all

# A marker file per target records what is installed; the three packages of constraints.txt are installed first, since
# the others depend on them.
$(VENV)/.base: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "longvale needs Python 3.11 or newer," \
	    "which \"$(PYTHON)\" is not; name one as in: make $(or $(MAKECMDGOALS),setup) PYTHON=python3.12" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) torch torchvision
	$(PIP) torchaudio
	$(PIP) --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.base
	$(PIP) --editable '.[annotation,dev]'
	@touch $@

$(VENV)/.docs: $(VENV)/.base
	$(PIP) --editable '.[docs]'
	@touch $@

$(VENV)/.all: $(VENV)/.dev
	$(PIP) --editable '.[annotation,app,dev,docs,logging,ray]'
	@touch $@
