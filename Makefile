# make demo | run | test | check | bench: each works on a fresh machine with Python >= 3.11.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo run test check bench clean

demo: $(VENV)/.demo
	$(BIN)/lookalike --home demo-home demo --out demo-home/answer.jpg

run: $(VENV)/.run
	$(BIN)/lookalike run

test: check
	$(BIN)/python -m pytest

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(VENV)/.test
	$(BIN)/lookalike bench

clean:
	rm -rf $(VENV) demo-home artefacts

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	$(PIP) install --editable '.[demo]'
	@touch $@

$(VENV)/.run: pyproject.toml | $(BIN)/python
	$(PIP) install --editable '.[demo,telegram,discord,web,video]'
	@touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	$(PIP) install --editable '.[test]'
	@touch $@
