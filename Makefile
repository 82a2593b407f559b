# Tapehouse. `make help` lists the targets.
SHELL := /bin/bash
PYTHON ?= python3.11
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
export DAGSTER_DISABLE_TELEMETRY = 1
export DO_NOT_TRACK = 1
export GX_ANALYTICS_ENABLED = false
export HF_HUB_DISABLE_TELEMETRY = 1
export HF_HUB_OFFLINE = 1
export MLFLOW_DISABLE_TELEMETRY = true
export TOKENIZERS_PARALLELISM = false

.DEFAULT_GOAL := help
.PHONY: help install run run-all test smollm2 lint check dev sql mlflow stale bench bench-env clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | awk -F'\t' '{printf "  make %-10s %s\n", $$1, $$2}'

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "error: $(PYTHON) not found; install Python 3.11, or say make PYTHON=/path/to/python"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install -q -c constraints.txt "pip>=25.1"
	$(BIN)/pip install -q -c constraints.txt -e . --group dev
	@touch $(STAMP)

install: $(STAMP) ## create .venv with everything pinned

run: $(STAMP) ## make whatever is missing or stale; ends with the leaderboard
	@$(BIN)/tapehouse run

run-all: $(STAMP) ## the same for every fold, adapters too: hours
	@TAPEHOUSE_ADAPTER_FOLDS=0 $(BIN)/tapehouse run

test: $(STAMP) ## run the tests
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

smollm2: $(STAMP) ## fetch SmolLM2-135M, the base of some recipes
	@$(BIN)/tapehouse fetch smollm2

lint: $(STAMP) ## ruff
	$(BIN)/ruff check .

check: $(STAMP) ## load and check the Dagster definitions
	$(BIN)/dg check defs

dev: $(STAMP) ## the Dagster UI on http://127.0.0.1:3000
	@$(BIN)/tapehouse dev

sql: $(STAMP) ## the DuckDB client on the warehouse, read-only
	@$(BIN)/tapehouse shell

mlflow: $(STAMP) ## MLflow's UI on http://127.0.0.1:5000
	@$(BIN)/tapehouse mlflow

stale: $(STAMP) ## what has changed since it was made
	@$(BIN)/tapehouse stale

bench: $(STAMP) ## run every program in bench/ and write docs/benchmarks.md
	$(BIN)/python bench/all.py

bench-env: ## environments of peers whose pins clash with ours (bench/peers/)
	@for peer in bench/peers/*/; do name=$$(basename $$peer); \
	  $(PYTHON) -m venv .venv-$$name && .venv-$$name/bin/pip install -q -r $$peer/requirements.txt && echo "made .venv-$$name"; done

clean: ## delete the warehouse (models and MLflow runs too); asks first
	@read -p "Delete warehouse/ with all tables, models and runs? [y/N] " a && [ "$$a" = y ] && rm -rf warehouse || true
