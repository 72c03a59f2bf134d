# Everything that Mizan needs is installed into .venv from lock files with hashes; nothing else is touched.
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo serve test fuzz test-postgres-15 check bench lock format lint types contracts migrations clean

VENV := .venv
PY := $(VENV)/bin/python
# The folder is in the stamp's name: an environment that was moved is installed again.
STAMP := $(VENV)/installed-$(shell pwd | cksum | cut -d ' ' -f 1)
WORKERS ?= 2
# Where Debian's package postgresql-15 puts its programs.
POSTGRES_15 ?= /usr/lib/postgresql/15/bin
BENCH ?= posting
UV := build/lock/bin/uv
COMPILE = $(UV) pip compile --quiet --universal --generate-hashes --no-emit-index-url --python-version 3.11 \
	--custom-compile-command "make lock"

help: ## list what can be made
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' Makefile

$(STAMP): requirements/dev.txt pyproject.toml requirements/install
	@sh requirements/install $(VENV)
	@touch $(STAMP)

demo: $(STAMP) ## run the main job end to end, on servers of its own
	@$(VENV)/bin/mizan demo

serve: $(STAMP) ## run the service, a worker and the console until Ctrl-C
	@$(VENV)/bin/mizan serve

test: $(STAMP) ## run the whole test suite
	@$(PY) -m pytest -n $(WORKERS) --dist loadfile

fuzz: $(STAMP) ## try every route as every role with new values, for minutes: make fuzz FUZZ=10
	@MIZAN_TESTS_FUZZ=$(or $(FUZZ),10) $(PY) -m pytest tests/http/test_openapi.py tests/http/test_schemathesis_roles.py

test-postgres-15: $(STAMP) ## run the tests that need a database on PostgreSQL 15, where it is installed
	@if [ -x $(POSTGRES_15)/postgres ]; then \
		MIZAN_TESTS_POSTGRES=$(POSTGRES_15) $(PY) -m pytest -n $(WORKERS) --dist loadfile --ignore-glob='*/test_embedded*' tests/integration tests/http tests/simulation; \
	else \
		echo "skipped: there is no PostgreSQL 15 in $(POSTGRES_15) (Debian: apt install postgresql-15; elsewhere: make $@ POSTGRES_15=/path/to/bin)"; \
	fi

check: lint types contracts migrations test ## what continuous integration runs

lint: $(STAMP) ## check the format and the style of the code
	@$(PY) -m ruff format --check .
	@$(PY) -m ruff check .

types: $(STAMP) ## check the types
	@$(PY) -m mypy

contracts: $(STAMP) ## check who imports whom
	@PYTHONPATH=. $(VENV)/bin/lint-imports

migrations: $(STAMP) ## migrate an empty database and compare it with the models
	@$(PY) -m api.migrations.check

bench: $(STAMP) ## measure: make bench BENCH=posting|pipeline|hooks|reads|api|payouts|reconcile
	@$(VENV)/bin/mizan bench $(BENCH)

format: $(STAMP) ## format the code and mend what can be mended
	@$(PY) -m ruff check --fix .
	@$(PY) -m ruff format .

$(UV):
	@python3 -m venv build/lock && build/lock/bin/python -m pip install --quiet --disable-pip-version-check uv

lock: $(UV) ## resolve requirements/*.in again into lock files with hashes; UPGRADE=--upgrade for newer versions
	@$(COMPILE) $(UPGRADE) --output-file requirements/runtime.txt requirements/runtime.in
	@$(COMPILE) $(UPGRADE) --constraint requirements/runtime.txt --output-file requirements/dev.txt requirements/dev.in

clean: ## remove the environment and what tools have cached, never data
	@rm -rf $(VENV) build .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
