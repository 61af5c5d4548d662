# `make demo` and `make test` set up .venv by themselves; nothing but Python 3.11 or later and make is needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.installed

help: ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 10

$(SETUP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

setup: $(SETUP) ## make .venv with everything installed

demo: $(SETUP) ## make a small set of action videos, extract, train, predict; results in demo/
	$(BIN)/vidpipe demo demo

test: $(SETUP) ## run the tests
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not real_clips and not slow"

slow: $(SETUP) ## run the tests that build the large backbones
	$(BIN)/python -m pytest -n auto -m slow

real: $(SETUP) ## run the tests on the real clips of ../shared/data, where they are
	$(BIN)/python -m pytest -m real_clips

check: $(SETUP) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(SETUP) ## measure accuracy and speed; see benchmarks/
	$(BIN)/python -m benchmarks

clean: ## remove .venv and what the demo wrote
	rm -rf $(VENV) demo

.PHONY: help setup demo test slow real check bench clean
