# Two commands: `make demo` and `make test`. Both set up .venv on the first run and install nothing on the next.

PYTHON ?= python3
# torch's CPU build: a tenth of the CUDA build's size. With a GPU: make demo TORCH_INDEX=https://pypi.org/simple
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
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

# torch comes first and alone, so that its own index is asked for nothing else; where that index cannot be reached,
# pip goes on to the configured ones.
$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	  echo "emdistill needs Python 3.11 or newer; '$(PYTHON)' is $$($(PYTHON) --version 2>/dev/null || echo not found)." >&2; \
	  echo "Name another: make $(MAKECMDGOALS) PYTHON=python3.12" >&2; exit 1; }
	@echo "Setting up .venv, once: 2 GB, a few minutes"
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --retries 1 --no-deps --extra-index-url $(TORCH_INDEX) -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[demo,dev]'
	@touch $@

clean:
	rm -rf .venv demo-run build dist emdistill.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
