# What a newcomer needs: make demo, make test. `make help` lists the rest.
SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test test-slow test-again sim check bench eval-placement up ha ha-proof webhook-proof chaos static feed-proof interop fuzz env env-dev lock format openapi typescript typescript-page browser clean

help: ## This list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s", $$1; n = split($$2, word, " "); at = 0; \
	  for (i = 1; i <= n; i++) { if (at + length(word[i]) > 76) { printf "\n%23s", ""; at = 0 } \
	    printf " %s", word[i]; at += length(word[i]) + 1 } print "" }' Makefile

demo: env ## Watch a real call survive the death of a region (ARGS=--json for machines)
	@$(BIN)/voxplane demo $(ARGS)

up: env ## A whole deployment on this machine, until Ctrl-C (ARGS="--regions 3 --port 8080")
	@$(BIN)/voxplane up $(ARGS)

ha: env ## The same with PostgreSQL on three servers, any of which may die (needs etcd)
	@$(BIN)/voxplane up --ha $(ARGS)

test: env-dev ## The default test suite, on the embedded engines (ARGS="-k name")
	@$(BIN)/python -m pytest -n 3 --dist loadscope -m "not slow and not browser" $(ARGS)

test-slow: env-dev ## What starts whole deployments: drains, drills, fencing, detection, TLS, traces, the command line (six minutes)
	@$(BIN)/python -m pytest -n 2 --dist loadscope -m "slow and not browser" $(ARGS)

test-again: env-dev ## Those tests that failed in the last run, one at a time
	@$(BIN)/python -m pytest --last-failed --last-failed-no-failures none -m "not browser" $(ARGS)

sim: env-dev ## The deterministic simulation (SEEDS=2000; SEED=n replays one; ONLY=seeds, mutations or agreement)
	@$(BIN)/python -m tests.simulation

check: env-dev ## Format, lint, types, import contracts, generated files
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@$(BIN)/python -m app.export --check

bench: env-dev ## Measure (ONLY=family, FULL=1 for the large ones); writes build/bench.json
	@$(BIN)/python -m tests.bench

eval-placement: env-dev ## How near to the oracle callers are placed (ARGS=file.npz, ONLY=matrix, hostile or load, CALLERS=1000000); writes build/placement.json
	@$(BIN)/python -m tests.evaluation $(ARGS)

ha-proof: env-dev ## Kill the primary under load and account for every answer (COUNT=50, about 25 minutes; needs etcd)
	@$(BIN)/python -m tests.chaos.primary_kill --count $(or $(COUNT),50) $(ARGS)

webhook-proof: env-dev ## Kill an instance every ten seconds under load: every webhook comes, in order (MINUTES=10)
	@$(BIN)/python -m tests.chaos.worker_kill --minutes $(or $(MINUTES),10)

chaos: env-dev ## Break real processes under load, and judge what was seen (MINUTES=10, SEED=n, CALLS=60)
	@$(BIN)/python -m tests.chaos

static: env-dev ## Kill everything but edges for MINUTES=10, and count what calls lose (CALLS=12, TICKETS=4)
	@$(BIN)/python -m tests.chaos.static_stability

feed-proof: env-dev ## Cut readers of events at random and kill instances: no gap, no repeat (READERS=1000, SECONDS=60, KILLS=4, SEED=n)
	@$(BIN)/python -m tests.chaos.feed_cuts

interop: env-dev ## Call the bots of others, unmodified: Pipecat, Teler, OpenAI Agents, and let werift call (ONLY=teler; needs a network once, and Node for the last two)
	@$(BIN)/python -m tests.interop

fuzz: env-dev ## Schemathesis over the whole OpenAPI document, all checks, every operation (EXAMPLES=10, SECONDS=0, SEED=n, ARGS=--ci; needs a network once); writes build/fuzz.json
	@$(BIN)/python -m tests.fuzz --examples $(or $(EXAMPLES),10) --seconds $(or $(SECONDS),0) --seed $(or $(SEED),1) $(ARGS)

typescript: ## Check, build and test the client for browsers, and that the edge's page is built from it (needs node and npm)
	@sh deploy/dev/typescript.sh check

typescript-page: ## Build the page that the edge serves again (needs node and npm)
	@sh deploy/dev/typescript.sh page

browser: env-dev ## The page in a real Chromium: failover, move, keys; writes build/browser.json and pictures (needs chromium)
	@sh deploy/dev/browser.sh $(ARGS)

openapi: env-dev ## Write the generated files in openapi/ again
	@$(BIN)/python -m app.export

format: env-dev ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

env: ## The environment to run in
	@sh deploy/dev/bootstrap.sh runtime

env-dev: ## The environment to develop in
	@sh deploy/dev/bootstrap.sh dev

lock: ## Resolve the dependencies anew
	@sh deploy/dev/lock.sh

clean: ## Remove the environment and what was built
	rm -rf $(VENV) build .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
