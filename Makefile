# `make demo` and `make test` set up .venv themselves. They need only Python 3.11 or later and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
SETUP := $(VENV)/.installed

help: ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 10

$(SETUP): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	@touch $@

setup: $(SETUP) ## create .venv with everything installed

demo: $(SETUP) ## draw action videos, extract, train and predict; results in demo/
	$(BIN)/vidpipe demo demo

test: $(SETUP) ## run the tests
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -m "not real_clips and not slow"

slow: $(SETUP) ## run the tests that take long, most for large backbones
	$(BIN)/python -m pytest -n auto -m slow

real: $(SETUP) ## run the tests on the real clips in ../shared/data, if they are there
	$(BIN)/python -m pytest -m real_clips

check: $(SETUP) ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: $(SETUP) ## measure accuracy, speed and reliability; see benchmarks/
	$(BIN)/python -m benchmarks

clean: ## remove .venv and the demo's output
	rm -rf $(VENV) demo

.PHONY: help setup demo test slow real check bench clean
