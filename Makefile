# The few verbs. Each sets up what it needs, so that any of them can be the first.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
CACHE := $(or $(MUMIAN_CACHE_DIR),$(HOME)/.cache/mumian)
UV := $(CACHE)/uv/bin/uv
BIN := .venv/bin
SOURCES := sdk/mumian orchestrator/mumian_orchestrator agents/mumian_agent tools tests examples bench
CARGO := cargo
SYNC := $(UV) sync --quiet --locked --all-packages --all-extras --all-groups
export MUMIAN_CACHE_DIR := $(CACHE)
export RAY_USAGE_STATS_ENABLED := 0

.DEFAULT_GOAL := help
.PHONY: help setup peers etcd helm demo dev test test-unit lint types bench bench-online bench-border bench-openb
.PHONY: bench-instructions bench-agent bench-global bench-global-large bench-gap bench-security bench-rtt faults sim sim-mutations
.PHONY: proto wheels docs test-again

help: ## Show the verbs
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

$(UV):
	@python3 -m venv $(CACHE)/uv && $(CACHE)/uv/bin/pip install --quiet uv

setup: $(UV) ## Make .venv with everything locked, the Rust core in release mode
	@$(SYNC)
	@# Compiled once: an environment that forbids Python to do it would compile at every start of a command.
	@[ .venv/.compiled -nt uv.lock ] || { $(SYNC) --compile-bytecode; \
		$(BIN)/python -m compileall -q sdk orchestrator agents scheduler_core/python; touch .venv/.compiled; }

peers: $(UV) ## Install the solvers that we compare with, in an environment of their own
	@$(UV) sync --quiet --locked --project bench/peers

etcd: ## Install etcd: Debian's package, or unpacked in the cache folder without root
	@tools/install_etcd.sh >/dev/null

helm: ## Have helm, which renders deploy/helm: built from its source where it is not installed (needs Go; minutes, once)
	@tools/install_helm.sh >/dev/null

demo: setup etcd ## A small city on this machine runs real jobs, then ends (3 minutes)
	@$(BIN)/python examples/demo/main.py

dev: setup etcd ## Start the platform on this machine; `.venv/bin/mumian down` stops it
	@$(BIN)/mumian up

test: setup peers etcd ## All tests: Rust, then Python with real etcd and Ray
	$(CARGO) test --release --workspace --quiet
	$(BIN)/pytest --numprocesses 2 --dist loadfile $(if $(AGAIN),|| $(MAKE) --no-print-directory test-again)

test-again: ## What failed last in Python, once more and alone on the machine
	@echo "== once more, alone: what passes now is still a defect, of the product or of its test; see above =="
	$(BIN)/pytest --last-failed --last-failed-no-failures none

ROUNDS ?= 5
faults: setup etcd ## Kill, stop and replace coordinators at work, and look for what was lost or done twice (15 minutes)
	$(BIN)/python -m tests.faults.run --rounds $(ROUNDS) $(if $(SEED),--seed $(SEED))

SEEDS ?= 1000
sim: setup ## Simulate faults by SEEDS=1000 seeds in virtual time, or replay one: SEED=17 (some minutes)
	$(BIN)/python -m tests.sim.run $(if $(SEED),--seed $(SEED),--seeds $(SEEDS))

sim-mutations: setup ## Leave out one thing after the other that keeps a promise: the simulation has to find each
	$(BIN)/python -m tests.sim.run --mutation all --seeds 80

test-unit: setup ## What needs neither Ray nor etcd: seconds
	$(BIN)/pytest -m "not ray and not etcd and not e2e"

lint: setup ## Formatting, style, layers, stubs, links of the docs, secrets left in a file, types
	$(CARGO) fmt --all --check
	$(CARGO) clippy --release --workspace --all-targets --quiet -- -D warnings
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/lint-imports --no-cache
	$(BIN)/python tools/generate_stubs.py --check
	$(BIN)/python tools/check_links.py
	$(BIN)/python tools/check_secrets.py
	$(MAKE) --no-print-directory types

types: setup ## mypy strict, and the native module's stub against the module
	$(BIN)/mypy $(SOURCES)
	$(BIN)/python -m mypy.stubtest mumian_core._native

bench: setup etcd ## The short benchmarks: one line `name value unit` each
	$(BIN)/mumian-bench openb --seeds 2
	$(BIN)/python -m bench.store
	$(BIN)/mumian-bench submit

bench-online: setup ## The online placer against scans and NumPy: ten seeds, three fleets (10 minutes)
	$(CARGO) build --release --quiet --package bench_online
	$(BIN)/python -m bench.online.run

bench-border: setup ## The border between Python and Rust: ns per delta, bytes per plan, time with the GIL
	$(CARGO) build --release --quiet --package bench_online
	$(BIN)/python -m bench.border

bench-instructions: setup ## Instructions of the hot paths against bench/instructions.toml (needs valgrind)
	$(CARGO) build --release --quiet --package bench_online
	$(BIN)/python -m bench.instructions

bench-openb: setup ## Alibaba's GPU trace beside the published table: ten seeds, four workloads (3 minutes)
	$(BIN)/python -m bench.openb.run

bench-global: setup peers ## The optimiser against CP-SAT and HiGHS: ten seeds, three sizes (50 minutes)
	$(BIN)/python -m bench.global_placement.run

bench-global-large: setup ## The optimiser alone on 1,000,000 tasks and 100,000 nodes (5 minutes)
	$(BIN)/python -m bench.global_placement.run 1000000x100000:60 --seeds 1 --peer none --name global-large

bench-security: setup etcd ## What TLS, tokens and the audit log cost a submit, beside none of them (1 minute)
	$(BIN)/python -m bench.security

bench-agent: setup etcd ## The agent: submit to running, overhead, probe traffic, error of coordinates (4 minutes)
	@# In an environment of its own, as it is installed: Ray would load some of what the tools here have brought.
	@UV_PROJECT_ENVIRONMENT=target/agent $(UV) sync --quiet --locked --compile-bytecode \
		--package mumian-agent --extra ray --no-dev
	@$(BIN)/python -m bench.agent.run --agent target/agent/bin/mumian-agent

bench-rtt: setup ## Network coordinates on measured matrices: three seeds (half a minute)
	$(BIN)/mumian-bench rtt data/rtt/planetlab_490_1.tsv.gz
	$(BIN)/mumian-bench rtt data/rtt/seattle_99_200.tsv.gz --unit s

SECONDS_EACH ?= 1 10
bench-gap: setup ## Generalized assignment instances; SECONDS_EACH="1 10 60" takes 20 minutes (3 minutes)
	$(BIN)/python -m bench.gap.run --seconds $(SECONDS_EACH)

proto: setup ## Generate the committed Python stubs
	$(BIN)/python tools/generate_stubs.py

wheels: setup ## Build the four wheels into dist/
	$(UV) build --quiet --all-packages --wheel --out-dir dist

docs: setup ## Check that every link between the docs leads somewhere
	$(BIN)/python tools/check_links.py
