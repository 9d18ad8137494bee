# Everything a developer or a curious user does, one target each; `make` alone lists them.
# The virtual environment is made once and again only when pyproject.toml changes.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
  $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEVELOPED := $(VENV)/.developed
LINK := build/typing/quorate
TESTS ?= tests
# Tests side by side: most of them wait for processes rather than for the processor.
JOBS ?= 3
BENCH ?=
# A run of chaos: the seed of the first one (fresh without), seconds of faults in each, how many, and 1, 3 or 5 nodes.
SEED ?=
SECONDS ?= 45
RUNS ?= 3
NODES ?= 0
# How long to fuzz.
MINUTES ?= 10
CHAOS = GRPC_ENABLE_FORK_SUPPORT=0 $(BIN)/python -m tests.chaos $(if $(SEED),--seed $(SEED)) --nodes $(NODES)

.PHONY: help run cluster down test retest clients chaos chaos-long sim sim-nightly crash-images bit-flips fuzz bench lint types imports audit format proto proto-check scripts-rewrite dev check clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: $(INSTALLED) ## start one node in the background and say where it listens
	@$(BIN)/python deploy/local.py run

cluster: $(INSTALLED) ## start three nodes on this machine: client ports 2379, 22379 and 32379
	@$(BIN)/python deploy/local.py cluster

down: $(INSTALLED) ## stop what run or cluster started
	@$(BIN)/python deploy/local.py down

test: $(DEVELOPED) ## run all tests; TESTS=tests/node runs a part
	$(BIN)/python -m pytest -n $(JOBS) --dist loadscope $(TESTS)

retest: $(DEVELOPED) ## run once more what failed, one at a time
	$(BIN)/python -m pytest --last-failed --last-failed-no-failures none $(TESTS)

clients: $(DEVELOPED) ## drive other people's clients at length, also through failures; Patroni needs root
	QUORATE_CLIENTS=1 $(BIN)/python -m pytest -rs $(foreach name,certificates etcd3gw npm patroni pypi templates,tests/conformance/test_$(name).py)

chaos: $(DEVELOPED) ## break real clusters in many ways at once and judge what clients saw; SEED=, SECONDS=, RUNS=, NODES=
	$(CHAOS) --seconds $(SECONDS) --runs $(RUNS)

chaos-long: $(DEVELOPED) ## the same for two hours, two minutes a run; figures are appended to build/chaos/figures.jsonl
	$(CHAOS) --seconds 120 --hours 2

sim: $(DEVELOPED) ## whole clusters under faults, simulated: 300 seeds; SEED=n replays one and shrinks it, JOBS=n processes
	$(BIN)/python -m tests.simulation.whole $(if $(SEED),--seed $(SEED),--seeds 300 --jobs $(or $(JOBS),2))

sim-nightly: $(DEVELOPED) ## the same with 10,000 seeds; FIRST=n begins with another; goes on where it was stopped
	$(BIN)/python -m tests.simulation.whole --seeds 10000 --first $(or $(FIRST),0) --jobs $(or $(JOBS),2) --figures build/sim.jsonl

crash-images: $(DEVELOPED) ## recover 60,000 images of what power cuts and failing disks leave; SEED=n for others
	QUORATE_CRASH_IMAGES=50000 QUORATE_FAILING_PLACES=100000 $(if $(SEED),QUORATE_SEED=$(SEED)) $(BIN)/python -m pytest --timeout 0 -s tests/crashes/test_log.py tests/crashes/test_database.py tests/crashes/test_failing_database.py

bit-flips: $(DEVELOPED) ## turn 6,000 bits in files of a member, one at a time, and damage members of a real cluster
	QUORATE_FLIPS=6000 $(if $(SEED),QUORATE_SEED=$(SEED)) $(BIN)/python -m pytest --timeout 0 -s tests/crashes/test_flips.py tests/cluster/test_healing.py

fuzz: $(DEVELOPED) ## random and mutated octets for everything that reads what others wrote; MINUTES=, TARGET=, SEED=
	$(BIN)/python -m tests.fuzzing --minutes $(MINUTES) $(if $(TARGET),--target $(TARGET)) $(if $(SEED),--seed $(SEED))

bench: $(DEVELOPED) ## measure against real etcd, side by side; BENCH=--quick for a short round
	$(BIN)/python -m bench $(BENCH)

check: lint types imports proto-check audit test ## everything the continuous integration runs

lint: $(DEVELOPED) ## style and formatting, changing nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEVELOPED) ## static types, strict
	$(BIN)/mypy

imports: $(DEVELOPED) ## which part may import which
	PYTHONPATH=build/typing $(BIN)/lint-imports

audit: $(DEVELOPED) ## compare what is installed with the published vulnerabilities
	.ci/audit $(BIN)

format: $(DEVELOPED) ## format the code and mend what can be mended
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

proto: $(DEVELOPED) ## rebuild the generated code from the .proto files
	$(BIN)/python -m quorate.proto.generate

proto-check: $(DEVELOPED) ## fail when the generated code is not what the .proto files say
	$(BIN)/python -m quorate.proto.generate --check

scripts-rewrite: $(DEVELOPED) ## rewrite the expected output of the Raft transcripts; explain the difference
	REWRITE=1 $(BIN)/python -m pytest tests/consensus/raft

dev: $(DEVELOPED) ## set up everything for working on the code

clean: ## remove the environment and what was built; data directories stay
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/bin/python:
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed"; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { echo "on Debian: apt-get install python3-venv"; rm -rf $(VENV); exit 1; }

$(INSTALLED): pyproject.toml | $(VENV)/bin/python
	@echo "installing Quorate into $(VENV); this takes half a minute, the first time only"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(DEVELOPED): pyproject.toml $(INSTALLED) | $(LINK)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

$(LINK):
	@mkdir -p $(@D) && ln -sfn ../../services $@
