# Targets are documented in README.md.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

MINUTES ?= 10
LOG ?= embedded

.PHONY: setup run test test-all lint wheel kafka soak soak-intake soak-cluster clients acceptance bench

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) || \
	  (test "$$(id -u)" = 0 && rm -rf $(VENV) && apt-get update -q && apt-get install -qy python3-venv && $(PYTHON) -m venv $(VENV))
	@echo "installing into $(VENV): takes minutes on a slow machine, the first time"
	$(BIN)/pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $@

run: setup
	$(BIN)/eventstreams dev || test $$? = 130  # Ctrl-C

test: setup
	$(BIN)/python -m pytest

test-all: setup
	$(BIN)/python -m pytest -m ""

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

wheel: setup
	rm -rf build  # what was built before is packed again else
	$(BIN)/pip wheel -q --disable-pip-version-check --no-build-isolation --no-deps -w dist .

kafka: setup
	$(BIN)/python -m tests.support.kafka

soak: setup
	$(BIN)/python -m tests.support.oracle --minutes $(MINUTES) --log $(LOG)

acceptance: setup
	$(BIN)/python -m tests.support.acceptance $(KIT)

soak-intake: setup
	$(BIN)/python -m tests.support.intake_oracle --minutes $(MINUTES) $(if $(SPOOL),--spool)

soak-cluster: setup
	$(BIN)/python -m tests.support.cluster_oracle --minutes $(MINUTES) $(if $(SESSION),--session $(SESSION))

clients: setup
	$(BIN)/python -m pytest -m clients tests/clients

bench: setup
	$(BIN)/python -m bench $(BENCH) $(if $(EVENTGATE),--eventgate $(EVENTGATE))
