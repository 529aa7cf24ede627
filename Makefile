# Everything happens in a local .venv, made from pyproject.toml. Needs Python 3.11 or later, make and, the first time, the network.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup reproduce test test-all lab html dashboard notebooks bench lint clean

help:
	@echo "make reproduce   set up, run every lesson, leave a site in build/html, print the claims' scorecard"
	@echo "make test        set up and run the fast tests: every lesson at its smallest, with the solutions filled in"
	@echo "make test-all    all tests: the saved numbers of every lesson, the browser, killed and resumed runs as well"
	@echo "make lab         set up and open JupyterLab on the first lesson"
	@echo "make html        the saved lessons and the library's functions as a site to read offline, in build/html"
	@echo "make dashboard   the lessons without their code; one: make dashboard LESSON=04"
	@echo "make notebooks   run and save the lessons, tidied        make bench   the speed benchmarks"
	@echo "make lint        ruff and mypy                           make clean   remove .venv and build"

$(READY): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "This needs Python 3.11 or later as '$(PYTHON)' (found: $$($(PYTHON) --version 2>&1 | head -n 1)). Try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "Python's venv module is incomplete; on Debian: apt-get install python3-venv"; exit 1; }
	@echo "setting up $(VENV) (a few minutes the first time) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --editable '.[test]'
	@$(BIN)/python -m compileall -qq -j 0 -x '/tests?/' $(VENV)/lib || true  # pip would do it on one core
	@touch $@

setup: $(READY)

reproduce: $(READY)
	@$(BIN)/croco lessons --html build/html
	@$(BIN)/croco claims

# A process a core; which tests stay together, and in what order they come, is said in tests/conftest.py.
# PYTHONUTF8: whatever the locale. CROCO_JOBS: a lesson trains one model at a time where a test runs on every core.
PYTEST = PYTHONUTF8=1 CROCO_JOBS=1 PATH="$(abspath $(BIN)):$$PATH" OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --no-loadscope-reorder

test: $(READY)
	@$(PYTEST) tests -m "not slow"

test-all: $(READY)
	@$(PYTEST)

lab: $(READY)
	@$(BIN)/jupyter lab notebooks/00_start_here.ipynb

# Every module by name: pdoc alone would stop at what `croco_lib` itself exports.
MODULES = $(subst /,.,$(basename $(filter-out %/__init__.py %/__main__.py,$(wildcard croco_lib/*.py croco_lib/*/*.py croco_lib/*/*/*.py))))

html: $(READY)
	@$(BIN)/pdoc --no-search -o build/html/api croco_lib $(MODULES)
	@$(BIN)/croco lessons --html build/html --as-saved

dashboard: $(READY)
	@$(BIN)/voila $(if $(LESSON),$(wildcard notebooks/$(LESSON)*.ipynb),notebooks) --Voila.ip=127.0.0.1

notebooks: $(READY)
	@$(BIN)/croco lessons --save

bench: $(READY)
	@$(BIN)/python -m pytest tests/benchmarks --benchmark-only

lint: $(READY)
	@$(BIN)/ruff format --check croco_lib tests
	@$(BIN)/ruff check croco_lib tests notebooks
	@$(BIN)/mypy

clean:
	rm -rf $(VENV) build
