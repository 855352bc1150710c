# Every target installs what it needs: `make demo` and `make test` work from a fresh clone.
SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

SLURM_PACKAGES := slurmctld slurmd slurm-client slurm-wlm-basic-plugins munge iproute2 shellcheck

.PHONY: venv demo test test-fast test-faults test-slurm check format bench clean

venv: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "gerbil_tune needs Python 3.11 or newer; $(PYTHON) is $$($(PYTHON) --version 2>&1). Say which one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "Installing into $(VENV) (about 2 GB; a few minutes the first time)"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/gerbil-tune demo

# Some at a time, for many wait for other processes; a file's tests stay together and share what they have set up.
# In the order of the folders, where files that take minutes come first: pytest-xdist would begin with those of
# many tests, which take the shortest, and end with one that all but one core wait for.
test: $(STAMP)
	@$(BIN)/python -m pytest -n 4 --dist loadfile --no-loadscope-reorder

test-fast: $(STAMP)
	@$(BIN)/python -m pytest -m 'not slow and not ray and not exhaustive'

test-faults: $(STAMP)
	@$(BIN)/python -m pytest tests/faults -m ''
	@$(BIN)/python -m pytest tests/integration tests/contracts -m exhaustive

# A real SLURM of two nodes in namespaces, one for each test; root installs Debian's packages for it.
test-slurm: $(STAMP)
	@for p in slurmctld slurmd munged ip shellcheck; do command -v $$p > /dev/null || missing=1; done; \
	if [ -n "$$missing" ] && [ "$$(id -u)" = 0 ] && command -v apt-get > /dev/null; then \
	  apt-get update -qq && \
	  DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $(SLURM_PACKAGES) > /dev/null; fi
	@REQUIRE_SLURM=1 $(BIN)/python -m pytest tests/slurm tests/unit/launch/test_scripts.py -m '' \
	  -o faulthandler_timeout=900 -n 2 --maxschedchunk 1

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP)
	@for f in tests/benchmarks/*.py; do echo "== $$f"; $(BIN)/python $$f || exit 1; done

clean:
	rm -rf $(VENV) build *.egg-info
