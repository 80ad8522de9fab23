# `make demo`, `make test` and `make bench` set up .venv on their first run and install nothing on the next.

PYTHON ?= python3
# Options for pip, such as the index of PyTorch's CPU builds: make test PIP_OPTIONS='--extra-index-url URL'
PIP_OPTIONS ?=
# Further options of `emdistill demo`: make demo ARGS='--seed 1'
ARGS ?=
# Folder of GLUE folders, for the benchmarks that need real sentences; they are left out where it is absent.
GLUE ?= ../shared/data/glue

BIN := .venv/bin
INSTALLED := .venv/installed
BENCH_INSTALLED := .venv/bench-installed
BENCHMARKS := transport layer_costs precision growth step inference student_shapes

.DEFAULT_GOAL := help
.PHONY: help demo test bench audit clean

help:
	@echo "make demo    distil the built-in task's teacher, offline; about 5 minutes on 2 cores after installation"
	@echo "make test    linter, formatter, type checker, tests: all that continuous integration runs"
	@echo "make bench   a short form of every speed benchmark: that they run, and rough figures; two to three minutes"
	@echo "make audit   known weaknesses of the packages in .venv, by pip-audit; it fails where it cannot ask about one"
	@echo "make clean   remove .venv, demo-run and every cache"

demo: $(INSTALLED)
	$(BIN)/emdistill demo --output demo-run $(ARGS)

test: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2

bench: $(BENCH_INSTALLED)
	@for name in $(BENCHMARKS); do echo "== $$name"; $(BIN)/python benchmarks/$$name.py --short || exit 1; done
	@if [ -d "$(GLUE)" ]; then echo "== epoch"; $(BIN)/python benchmarks/epoch.py --short --data "$(GLUE)"; \
	  else echo "epoch left out: no folder $(GLUE); make bench GLUE=FOLDER names another"; fi

audit: $(INSTALLED)
	@$(BIN)/python -m pip install --quiet $(PIP_OPTIONS) -c constraints.txt -e '.[audit]'
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+.*//' | \
	  $(BIN)/python -m pip_audit --strict --disable-pip --no-deps --progress-spinner off -r /dev/stdin

$(BENCH_INSTALLED): $(INSTALLED)
	$(BIN)/python -m pip install --quiet $(PIP_OPTIONS) -c constraints.txt -e '.[bench]'
	@touch $@

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
