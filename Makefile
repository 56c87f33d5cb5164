# The two commands are `make run` and `make test`; `make` alone lists the others.
# Everything runs in .venv, which is made from requirements.lock and made again when the
# lock or pyproject.toml changes. PYTHON=/path/to/python3.12 chooses the interpreter.

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/installed
# What mypy holds to strictness.
TYPED := orchestrator agents api deploy
UV_VERSION := 0.13.9
TORTURE := PYTHONPATH=.:tests/acceptance $(BIN)/python -m torture

.DEFAULT_GOAL := help
.PHONY: help run test check lint agent demo demo-business bench fuzz torture torture-celery torture-workflows \
	soak lock clean

help: ## this list
	@echo "make <target>:"
	@sed -nE 's/^([a-z-]+):[^#]*## (.*)/  \1\t\2/p' $(MAKEFILE_LIST) | expand -t 18

run: $(READY) ## the whole system on this machine, until Ctrl-C: front door, agents, Flower, servers
	@$(BIN)/python -m deploy.run

test: $(READY) ## every test, on servers that it starts itself; ARGS="-k quote -x" for pytest
	@$(BIN)/python -m pytest $(ARGS)

check: lint test ## lint, types, direction of imports, tests

lint: $(READY) ## lint, types, direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy $(TYPED)
	$(BIN)/lint-imports

agent: $(READY) ## one more worker for the running system: make agent ROLE=quote
	@$(BIN)/python -m deploy.agent "$(ROLE)"

demo: $(READY) ## a conversation with the running system, and how it came about
	@$(BIN)/python -m deploy.demo

demo-business: $(READY) ## five weeks of a business in half an hour, and its report; ARGS="--conversations 400"
	@PYTHONPATH=.:tests/acceptance $(BIN)/python -m month $(ARGS)

bench: $(READY) ## measure, as ratios to bare Celery; ARGS="..." for the benchmarks
	@$(BIN)/python -m benchmarks $(ARGS)

fuzz: $(READY) ## hold the front door to its own description; REQUESTS=5000 SEED=1
	@PYTHONPATH=.:tests/acceptance $(BIN)/python -m fuzz --requests $(or $(REQUESTS),5000) \
		--seed $(or $(SEED),1) $(ARGS)

torture: $(READY) ## kill everything at random under load; MINUTES=30 SEED=1 ARGS="--gap-s 5"
	@$(TORTURE) --minutes $(or $(MINUTES),30) --seed $(or $(SEED),1) $(ARGS)

torture-celery: $(READY) ## the same load and faults against Celery alone; MINUTES=30 SEED=1
	@$(TORTURE) --celery --minutes $(or $(MINUTES),30) --seed $(or $(SEED),1) $(ARGS)

torture-workflows: $(READY) ## kill what carries runs of the shipped workflows; MINUTES=5 RUNS=500 SEED=1
	@PYTHONPATH=.:tests/acceptance $(BIN)/python -m torture.flows --minutes $(or $(MINUTES),5) \
		--runs $(or $(RUNS),500) --seed $(or $(SEED),1) $(ARGS)

soak: $(READY) ## 100,000 tasks as fast as they go, and the memory of every process; TASKS=100000
	@PYTHONPATH=.:tests/acceptance $(BIN)/python -m torture.soak --tasks $(or $(TASKS),100000)

lock: ## resolve the two locks anew after a change of pyproject.toml; UPGRADE=1 for newer versions
	@test -x build/uv/bin/uv || { python3 -m venv build/uv && build/uv/bin/pip install -q uv==$(UV_VERSION); }
	build/uv/bin/uv pip compile --quiet --universal --generate-hashes --all-extras \
		--python-version 3.11 $(if $(UPGRADE),--upgrade) \
		--custom-compile-command "make lock" pyproject.toml -o requirements.lock
	@# For images: the same versions, without the extras.
	build/uv/bin/uv pip compile --quiet --universal --generate-hashes \
		--python-version 3.11 --constraint requirements.lock --no-annotate \
		--custom-compile-command "make lock" pyproject.toml -o requirements-runtime.lock

clean: ## remove what can be made again; keeps .data
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis \
		.import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(READY): requirements.lock pyproject.toml deploy/environment.sh
	@deploy/environment.sh $(VENV)
	@touch $@
