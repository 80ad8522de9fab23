# Two commands: `make demo` and `make test`. Both set up .venv on the first run and install nothing on the next.

PYTHON ?= python3
# Options for pip, such as the index of PyTorch's CPU builds: make test PIP_OPTIONS='--extra-index-url URL'
PIP_OPTIONS ?=
# Further options of `emdistill demo`: make demo ARGS='--seed 1'
ARGS ?=

BIN := .venv/bin
INSTALLED := .venv/installed

.DEFAULT_GOAL := help
.PHONY: help demo test clean

help:
	@echo "make demo    distil the built-in task's teacher, offline; at most 10 minutes on 2 cores after installation"
	@echo "make test    linter, formatter, type checker, tests: all that continuous integration runs"
	@echo "make clean   remove .venv, demo-run and every cache"

demo: $(INSTALLED)
	$(BIN)/emdistill demo --output demo-run $(ARGS)

test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "emdistill needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo not found)." >&2; \
	  echo "Name another: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@echo "Setting up .venv, once: 2 GB, a few minutes"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet $(PIP_OPTIONS) -c constraints.txt -e '.[demo,dev]'
	@touch $@

clean:
	rm -rf .venv demo-run build dist emdistill.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
