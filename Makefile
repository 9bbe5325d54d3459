# Needs Python 3.11+, make and the package index. `make run PYTHON=python3.12` picks another interpreter.
PYTHON  ?= python3
ENGINES ?= 0
SUITE   ?=
VENV    := .venv
PY      := $(VENV)/bin/python
TYPED   := hiersched/core hiersched/protocol hiersched/kernels hiersched/data

.PHONY: help run test stress check format bench sim docs ipp-suite clean

help:
	@echo "make run     a grid search over scikit-learn's digits on a local cluster (ENGINES=n)"
	@echo "make test    the tests"
	@echo "make stress  the long tests: 200 random kills, large simulations"
	@echo "make check   format, lint, types, layers"
	@echo "make format  rewrite the sources in the house format"
	@echo "make bench   every benchmark against its peers, and the plots in docs/"
	@echo "make sim     100,000 engines in simulated time"
	@echo "make docs    the documentation, in site/; its notebooks are run"
	@echo "make ipp-suite  ipyparallel's own tests on our side of the wire, and docs/compatibility.md (SUITE='-k abort view': some)"
	@echo "make clean   remove the environment and every cache"

run: $(VENV)/run
	@$(PY) launchers/digits_grid_search.py --engines $(ENGINES)

test: $(VENV)/test
	@$(PY) -m pytest

stress: $(VENV)/test
	@$(PY) -m pytest -m "slow or stress"

check: $(VENV)/test
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .
	@$(PY) -m mypy $(TYPED)
	@$(PY) -m pytest -q tests/test_layering.py

format: $(VENV)/test
	@$(PY) -m ruff format .
	@$(PY) -m ruff check --fix .

bench: $(VENV)/bench
	@$(PY) -m benchmarks

sim: $(VENV)/run
	@$(VENV)/bin/hiersched sim --engines 100000 --seed 7

docs: $(VENV)/docs
	@NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --quiet --strict

ipp-suite: $(VENV)/suite
	@$(PY) -m tests.ipyparallel_suite $(SUITE)

clean:
	rm -rf $(VENV) site .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# The environment, and one stamp per set of extras: installed again when pyproject.toml changes.
$(PY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "hiersched needs Python 3.11 or newer, and $(PYTHON) is " + sys.version.split()[0] + "; name another: make PYTHON=python3.12")'
	@echo "creating $(VENV)"
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 1; }

$(VENV)/run $(VENV)/test $(VENV)/bench $(VENV)/docs $(VENV)/suite: $(VENV)/%: pyproject.toml | $(PY)
	@echo "installing hiersched[$*]; the first time takes a minute or two"
	@$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[$*]'
	@touch $@
