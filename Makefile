# The few verbs. Each sets up what it needs, so that any of them can be the first.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
CACHE := $(or $(MUMIAN_CACHE_DIR),$(HOME)/.cache/mumian)
UV := $(CACHE)/uv/bin/uv
BIN := .venv/bin
SOURCES := tools tests
CARGO := cargo
export MUMIAN_CACHE_DIR := $(CACHE)
export RAY_USAGE_STATS_ENABLED := 0

.DEFAULT_GOAL := help
.PHONY: help setup etcd test lint types proto wheels

help: ## Show the verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(UV):
	@python3 -m venv $(CACHE)/uv && $(CACHE)/uv/bin/pip install --quiet uv

setup: $(UV) ## Make .venv with everything locked, the Rust core in release mode
	@$(UV) sync --quiet --locked --all-packages --all-extras --all-groups

etcd: ## Install etcd: Debian's package, or unpacked in the cache folder without root
	@tools/install_etcd.sh >/dev/null

test: setup ## All tests: Rust, then Python
	$(CARGO) test --release --workspace --quiet
	$(BIN)/pytest

lint: setup ## Formatting, style, layers, stubs, types
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets --quiet -- -D warnings
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/python tools/generate_stubs.py --check
	$(MAKE) --no-print-directory types

types: setup ## mypy strict, and the native module's stub against the module
	$(BIN)/mypy $(SOURCES)
	$(BIN)/python -m mypy.stubtest mumian_core._native

proto: setup ## Generate the committed Python stubs
	$(BIN)/python tools/generate_stubs.py

wheels: setup ## Build the four wheels into dist/
	$(UV) build --quiet --all-packages --wheel --out-dir dist
