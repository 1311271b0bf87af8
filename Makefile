# Two promises: `make demo` and `make test` work on a fresh machine with Python 3.10+.
PYTHON ?= python3
# To prove the lowest versions: the lowest Python too, where there is one (pyenv hides its own).
OLDEST_PYTHON ?= $(shell PYENV_VERSION=3.10 python3.10 -c 'import sys; print(sys.executable)' \
  2>/dev/null || echo $(PYTHON))
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DOCS_INSTALLED := $(VENV)/.installed-docs
OLDEST := .venv-oldest
SDIST := build/sdist
DEBIAN_DATA := dataset-fashion-mnist opencv-doc sweethome3d-furniture
# Arguments for pytest, such as TESTS="tests/nn -x".
TESTS ?=

.PHONY: demo docs test test-browser test-data test-shuffled test-sparse test-sdist test-oldest lint clean help

help:
	@echo "make demo           set up, train AttentionViG on embedded digits, draw what it attends to"
	@echo "make docs           set up, run the pages' code and the notebooks, build the site into build/docs"
	@echo "make test           set up, run all tests (TESTS='tests/nn -x': some)"
	@echo "make test-browser   install Chromium where the system has apt and root, run the tests that look at pages"
	@echo "make test-data      install the published data that ship in packages, run the tests that read them"
	@echo "make test-shuffled  set up, run all tests in random order (TESTS=--randomly-seed=N: that one again)"
	@echo "make test-sparse    build torch-scatter and torch-sparse, run the tests that need them"
	@echo "make test-sdist     build the source distribution, run the quick tests inside it"
	@echo "make test-oldest    install the lowest versions that pyproject.toml allows into $(OLDEST), run all tests there"
	@echo "make lint           set up, run ruff and mypy, and TypeScript on the page's scripts where npm is"
	@echo "make clean          remove the virtual environments, the caches and what was built"

demo: $(INSTALLED)
	$(BIN)/python -W ignore examples/digits_demo.py

# From nothing each time, so that no page of an earlier build hides a mistake.
docs: $(DOCS_INSTALLED)
	rm -rf build/docs docs/reference docs/cards
	$(BIN)/python -m pytest tests/docs tests/test_docstrings.py
	$(BIN)/python -m sphinx --fail-on-warning --keep-going --quiet --builder html docs build/docs
	@echo "written: build/docs/index.html"

test: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 $(TESTS)

test-browser: $(INSTALLED)
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && apt-get install -qq --no-install-recommends chromium || \
	    echo "Chromium could not be installed: tests that need it are skipped." >&2; \
	else \
	  echo "As root on Debian: apt-get install chromium"; \
	fi
	$(BIN)/python -m pytest -m browser $(TESTS)

test-data: $(INSTALLED)
	tools/install_data $(BIN)/python
	@if [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  apt-get update -qq && apt-get install -qq --no-install-recommends $(DEBIAN_DATA) || \
	    echo "Not all of $(DEBIAN_DATA) could be installed: tests that need them are skipped." >&2; \
	else \
	  echo "As root on Debian, more data: apt-get install $(DEBIAN_DATA)"; \
	fi
	$(BIN)/python -m pytest -n 2 -m data $(TESTS)

test-shuffled: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 -p randomly --randomly-dont-reset-seed $(TESTS)

test-sparse: $(INSTALLED)
	tools/install_sparse $(BIN)/python
	$(BIN)/python -m pytest -n 2 -m sparse $(TESTS)

test-sdist: $(INSTALLED)
	rm -rf $(SDIST) && mkdir -p $(SDIST)
	$(BIN)/python -m build --sdist --outdir $(SDIST) .
	tar -xzf $(SDIST)/*.tar.gz -C $(SDIST) --strip-components 1
	cd $(SDIST) && $(abspath $(BIN))/python -m pytest -n 2 -m 'not slow' $(TESTS)

test-oldest: $(OLDEST)/.installed
	$(OLDEST)/bin/python -m pytest -n 2 $(TESTS)

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	tools/lint_scripts $(VENV)/typescript

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "expected Python 3.10 or newer (got $$($(PYTHON) --version 2>&1)); try make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	@echo "Installing PyTorch, PyTorch Geometric and the rest into $(VENV); a few minutes, about 6 GB."
	$(BIN)/python -m pip install --quiet -e '.[dev]'
	@touch $@

$(DOCS_INSTALLED): $(INSTALLED)
	$(BIN)/python -m pip install --quiet -e '.[docs]'
	@touch $@

# Of what pyproject.toml names, the lowest; of what those need in turn, the newest that they take.
$(OLDEST)/.installed: pyproject.toml
	rm -rf $(OLDEST)
	$(OLDEST_PYTHON) -m venv $(OLDEST)
	$(OLDEST)/bin/python -m pip install --quiet uv
	@echo "Installing the lowest versions into $(OLDEST); a few minutes, about 7 GB."
	$(OLDEST)/bin/uv pip install --quiet --python $(OLDEST)/bin/python --resolution lowest-direct -e '.[dev]'
	@touch $@

clean:
	rm -rf $(VENV) $(OLDEST) build dist .pytest_cache .ruff_cache .mypy_cache .hypothesis
