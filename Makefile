# Everything a person does here by hand. pip only; the environment is .venv, made on first use.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check
PRESET ?= default
HOST   ?= 127.0.0.1
PORT   ?= 8000

# What the installed package is made of, besides Python files: those are read in place.
NATIVE := CMakeLists.txt pyproject.toml $(shell find csrc -name '*.cpp' -o -name '*.h' -o -name '*.inc' 2>/dev/null)

.PHONY: help setup serve test check format prove build docs clean
help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

setup: $(VENV)/.base ## make .venv, build the kernels, install
serve: $(VENV)/.base ## serve the default model at http://127.0.0.1:8000 (PRESET=… HOST=… PORT=…)
	@exec $(BIN)/temper serve $(PRESET) --host $(HOST) --port $(PORT)

test: $(VENV)/.test ## everything the tests need, then the tests
	@$(BIN)/python -m pytest $(TESTS)

check: $(VENV)/.check ## format, lint, types, layers, docs
	@tools/check

format: $(VENV)/.check ## put Python and C++ into the house's format
	@$(BIN)/ruff check --fix --quiet . ; $(BIN)/ruff format --quiet .
	@find csrc -name '*.cpp' -o -name '*.h' -o -name '*.inc' | xargs $(BIN)/clang-format -i

docs: $(VENV)/.base ## write the pages that are generated from the code again
	@$(BIN)/python tools/generate_docs.py

# `make prove NAME`: the words after `prove` are its argument, not targets.
ifeq (prove,$(firstword $(MAKECMDGOALS)))
NAME ?= $(word 2,$(MAKECMDGOALS))
$(eval $(wordlist 2,9,$(MAKECMDGOALS)):;@:)
endif
prove: $(VENV)/.test ## one long proof: make prove NAME (benchmarks/prove_NAME.py)
	@test -n "$(NAME)" || { echo "name a proof: $(patsubst benchmarks/prove_%.py,%,$(wildcard benchmarks/prove_*.py))"; exit 2; }
	@test -f benchmarks/prove_$(NAME).py || { echo "no proof '$(NAME)'; there are: $(patsubst benchmarks/prove_%.py,%,$(wildcard benchmarks/prove_*.py))"; exit 2; }
	@$(BIN)/python benchmarks/prove_$(NAME).py $(ARGS)

build: $(VENV)/.base ## rebuild the kernels after a change in csrc/
	@touch CMakeLists.txt && $(MAKE) --no-print-directory setup

clean: ## remove .venv and everything built
	rm -rf $(VENV) build dist

# -- stamps: each is as new as the last time its packages were installed ----------------------------

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Temper needs Python 3.11 or newer: make setup PYTHON=…")'
	$(PYTHON) -m venv $(VENV)

# The packages that pyproject.toml names for a purpose: build tools, or an extra.
requires = $(shell $(PYTHON) tools/requirements.py $(1))

# Build tools live in .venv (no build isolation), so that CMake's cache stays good from build to build.
$(VENV)/.tools: pyproject.toml tools/requirements.py | $(VENV)/bin/python
	$(PIP) install --quiet "cmake>=3.18" ninja $(call requires,build)
	@touch $@

$(VENV)/.base: $(NATIVE) $(VENV)/.tools
	PATH="$(abspath $(BIN)):$$PATH" $(PIP) install --quiet --no-build-isolation --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.base tools/install_chromium
	$(PIP) install --quiet $(call requires,test torch otel data)
	@tools/install_chromium
	@touch $@

$(VENV)/.check: $(VENV)/.base
	$(PIP) install --quiet $(call requires,check)
	@touch $@
