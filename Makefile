# Every target sets the checkout up as far as it needs; a repeated set-up costs about 0.1 s.

SHELL := /bin/bash
.DEFAULT_GOAL := help
.NOTPARALLEL:

PYTHON ?= python3
BIN := .venv/bin
# CPU=1: take a CPU build of the engine although the machine has an NVIDIA GPU.
SET_UP := $(PYTHON) scripts/set_up.py $(if $(CPU),--cpu)
PYTEST := $(BIN)/python -m pytest
HAS_GPU := nvidia-smi --list-gpus >/dev/null 2>&1
suites = $(wildcard $(addprefix tests/,$(1)))
# One process per core, for tests without engines and daemons of their own.
PARALLEL := --numprocesses logical --maxprocesses 8 --dist worksteal
# Two processes with half of the cores each, for tests with engines and daemons.
HALVES := --numprocesses 2 --dist loadfile --own-cores
# Three processes on all cores, for tests that wait for much of their time; each takes the next one when it is free.
WAITING := --numprocesses 3 --dist load --maxschedchunk 1
FULL := LLORCH_TEST_MUTATIONS=100000 LLORCH_TEST_SEEDS=64 LLORCH_TEST_RESTARTS=10
# Bytecode is kept, also where the environment says otherwise: without it every pytest, and every process that a test
# starts, compiles all modules again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help demo test unit chaos chaos-long test-gpu up bench bench-brain bench-engine bench-gpu gen check lint type drift format clean set-up set-up-without-engine

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

demo: set-up ## Show a real model answering, over HTTP and over gRPC (CPU=1: on the CPU, even with a GPU)
	@$(BIN)/python scripts/demo.py $(if $(CPU),--cpu)

test: set-up check ## Everything that has to pass: check, then all test suites
	@echo "kills, faults, restarts, mutations and seeds in part; make chaos takes the full counts"
	$(PYTEST) $(PARALLEL) -m "not native" $(call suites,unit contract sim)
	$(PYTEST) $(HALVES) -m native $(call suites,unit contract sim)
	$(PYTEST) $(HALVES) $(call suites,integration e2e)
	$(call chaos_beside_each_other)
	$(PYTEST) $(HALVES) -m alone $(call suites,chaos)

unit: set-up-without-engine ## The inner loop, at most 60 s: unit, contract and simulation, without the native engine
	LLORCH_SIM_SEEDS=25 LLORCH_SIM_WORLDS=100 LLORCH_TEST_EXAMPLES=quarter $(PYTEST) $(PARALLEL) -m "not native and not quality" $(call suites,unit contract sim)

# Chaos tests: what waits for most of its time, then what computes; $(1) says how often (support.chaos_count).
define chaos_beside_each_other
	$(1) $(PYTEST) $(WAITING) -m "not alone and not native and not busy" $(call suites,chaos)
	$(1) $(PYTEST) $(HALVES) --no-loadscope-reorder -m "(native or busy) and not alone" $(call suites,chaos)
endef

# Then what measures times.
define chaos_suite
	$(call chaos_beside_each_other,$(FULL) LLORCH_CHAOS=$(1))
	$(FULL) LLORCH_CHAOS=$(1) $(PYTEST) -m alone $(call suites,chaos)
endef

chaos: set-up ## The chaos tests with the full counts of kills, cuts and faults: about half an hour
	$(call chaos_suite,full)

chaos-long: set-up ## The chaos tests with ten times as many: some hours
	$(call chaos_suite,10)

up: set-up ## Run a whole system on this machine until Ctrl-C (ARGS="--cpu …": options of `llorch up`)
	@$(BIN)/llorch up $(ARGS)

bench: set-up ## Measure what llama-orch itself costs; figures are no part of any test
	@for measurement in streams gateway idle heartbeat swap; do PYTHONPATH=tests $(BIN)/python tests/bench/bench_$$measurement.py || exit 1; done

bench-brain: set-up-without-engine ## Measure how fast the brain decides, and how well (ARGS="--quick")
	@PYTHONPATH=tests $(BIN)/python tests/bench/bench_brain.py $(ARGS)

bench-engine: set-up ## Compare the engine with llama.cpp's own server core (ARGS="--rounds 5 --full")
	@$(BIN)/python -m pip install --quiet --editable ".[bench]"
	@$(BIN)/python tests/bench/bench_engine.py $(ARGS)

test-gpu: set-up ## The tests that need a GPU; without one it says so and passes
	@$(HAS_GPU) || { echo "skipped: no GPU"; exit 0; }; $(PYTEST) -m gpu tests/contract

bench-gpu: set-up ## The same comparison on the first GPU; without one it says so and passes
	@$(HAS_GPU) || { echo "skipped: no GPU"; exit 0; }; \
	CUDA_VISIBLE_DEVICES=$$(nvidia-smi --query-gpu=uuid --format=csv,noheader | head -1) \
	  $(BIN)/python tests/bench/bench_engine.py $(ARGS)

check: lint type drift ## Lint, types, import rules, contract lint, and that generated files are up to date

lint: set-up-without-engine ## ruff, import rules (import-linter) and the contract (buf)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/lint-imports
	@$(BIN)/python scripts/generate.py --googleapis-only
	$(BIN)/buf lint

type: set-up-without-engine ## mypy, strict
	$(BIN)/mypy

drift: set-up-without-engine ## Fail if something generated is not up to date
	$(BIN)/python scripts/generate.py --check
	$(BIN)/python scripts/document_settings.py --check
	$(BIN)/python scripts/document_options.py --check

gen: set-up-without-engine ## Generate gen/ from proto/, the tables of docs/configuration.md, and docs/options.md
	$(BIN)/python scripts/generate.py
	$(BIN)/python scripts/document_settings.py
	$(BIN)/python scripts/document_options.py

format: set-up-without-engine ## Format the Python files, and put the imports in order
	$(BIN)/ruff check --select I --fix
	$(BIN)/ruff format

clean: ## Remove everything that make has made here, .venv included
	rm -rf .venv .deps build dist bench-results
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find services gen tests scripts -name __pycache__ -type d -prune -exec rm -rf {} +

set-up: ## Set this checkout up in .venv; the other targets do it by themselves
	@$(SET_UP)

set-up-without-engine:
	@$(SET_UP) --without-engine
