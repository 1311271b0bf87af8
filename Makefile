# Two promises: `make demo` and `make test` work on a fresh machine with Python 3.10+.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo test test-sparse lint clean help

help:
	@echo "make demo   set up, train AttentionViG on embedded digits, draw what it attends to"
	@echo "make test   set up, run all tests"
	@echo "make test-sparse  build torch-scatter and torch-sparse too, run the tests that need them"
	@echo "make lint   set up, run ruff and mypy"
	@echo "make clean  remove the virtual environment and the caches"

demo: $(INSTALLED)
	$(BIN)/python -W ignore examples/digits_demo.py

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2

test-sparse: $(INSTALLED)
	tools/install_sparse $(BIN)/python
	$(BIN)/python -m pytest -n 2 -m sparse

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

$(INSTALLED): pyproject.toml tools/install_data
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "expected Python 3.10 or newer (got $$($(PYTHON) --version 2>&1)); try make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "Installing PyTorch, PyTorch Geometric and the rest into $(VENV); a few minutes, about 6 GB."
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	tools/install_data $(BIN)/python
	@touch $@

clean:
	rm -rf $(VENV) .pytest_cache .ruff_cache .mypy_cache .hypothesis
