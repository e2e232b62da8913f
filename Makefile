# make demo    the whole way on synthetic CT, into nnduet_demo/
# make test    lint, types and tests with coverage
# make quick   lint, types, and the tests that take less than a second each: before every commit
# make lint    ruff and mypy only
# make docs    the docs and the public names as a site, site/index.html (in a venv of its own)
# make audit   known vulnerabilities of the pinned packages (pip-audit, in a venv of its own)
# make lock    requirements.lock: the pinned versions with the hashes of their files for this Python and platform
# Needs Python 3.11 and make. Each target first brings .venv to the versions in constraints.txt.

PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
OUTPUT ?= nnduet_demo

.PHONY: demo test quick lint docs audit lock install
.DEFAULT_GOAL := help

.PHONY: help
help:
	@sed -n 's/^# //p' Makefile

install: .venv/.installed

# torch comes first and alone, so that pip does not look at other torch builds on behalf of a dependency.
.venv/.installed: pyproject.toml constraints.txt
	$(BIN)/python -c "" 2>/dev/null || $(PYTHON) -m venv --clear .venv
	$(PIP) torch==2.13.0
	$(PIP) -e ".[dev]"
	touch $@

demo: install
	$(BIN)/nnduet demo --output $(OUTPUT) --seed 0

lint: install
	$(BIN)/ruff check src tests benchmarks examples .ci
	$(BIN)/ruff format --check src tests benchmarks examples .ci
	$(BIN)/mypy

# Two processes of one thread each: small networks gain nothing from a second. Files are not split, for they share fixtures.
test: lint
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder \
		--cov=nnduet --cov-report=term --cov-fail-under=90

docs: .venv-docs/.installed
	.venv-docs/bin/python .ci/docs_site.py

.venv-docs/.installed: .ci/docs-requirements.txt
	$(PYTHON) -m venv --clear .venv-docs
	.venv-docs/bin/python -m pip install --quiet --disable-pip-version-check -r .ci/docs-requirements.txt
	touch $@

# What is left out is marked slow in the tests or listed in tests/slow_tests.txt.
quick: lint
	OMP_NUM_THREADS=1 OMP_WAIT_POLICY=PASSIVE $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

audit:
	test -x .venv-audit/bin/pip-audit || ($(PYTHON) -m venv --clear .venv-audit && \
		.venv-audit/bin/python -m pip install --quiet --disable-pip-version-check pip-audit)
	.venv-audit/bin/python .ci/audit.py

lock: install
	$(BIN)/python .ci/lock.py
