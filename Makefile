# Two commands matter: `make demo` and `make test`. Each sets up .venv by itself.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: setup demo test lint schemas peers interop bench soak

setup: $(STAMP)

$(STAMP): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("gridgate needs Python 3.11 or newer, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	@$(PYTHON) -c 'import ensurepip, venv' || { echo "this Python cannot make virtual environments; on Debian: apt-get install python3-venv" >&2; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[dev]'
	touch $(STAMP)

# A whole site, simulated, for about a minute. ARGS='--seed 7 --keep DIR' for more.
demo: $(STAMP)
	$(BIN)/gridgate demo $(ARGS)

# Everything fast: what a change has to pass before it is worth a look.
test: lint
	$(BIN)/pytest -n auto -m "not interop and not slow and not bench"

lint: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# Remakes generated files: JSON Schemas and OCPP's message types.
schemas: $(STAMP)
	$(BIN)/python -m gateway.resources --write

# Programs by others, into .peers/: downloads them, once. The station ocpp-rpc needs node and npm.
peers:
	set -e; for script in tests/interop/install_*.sh; do sh $$script; done

# Tests against them; a peer that is not there is named and left out.
interop: $(STAMP)
	$(BIN)/pytest -m interop -rs --timeout=180

# Ratios against a baseline in the same run. ARGS=allocator for one of them.
bench: $(STAMP)
	$(BIN)/python -m tests.bench $(ARGS)

# What takes longer than a change can wait: slow tests, tests against peers, and many random lives of a site.
SEQUENCES ?= 50000
# Real seconds of simulated worlds: an hour is some weeks of a site.
SIMULATION_S ?= 3600
soak: $(STAMP)
	GRIDGATE_SEQUENCES=$(SEQUENCES) $(BIN)/pytest -n auto -m "slow or interop" tests/property
	GRIDGATE_SIMULATION_S=$(SIMULATION_S) $(BIN)/pytest -m slow tests/simulation
	$(BIN)/pytest -m "slow or interop" -rs --timeout=600 --ignore=tests/property --ignore=tests/simulation
