# Needs Python 3.11 or newer and make. Everything is installed into .venv, once.
#   PYTHON=  the interpreter      REPO=  the repository to ask      ARGS=  handed to pytest, or a benchmark

.DEFAULT_GOAL := help
.PHONY: help setup demo test check fix kafka bench chaos fuzz soak

VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint constraints.txt

help: ## list what can be made
	@awk 'BEGIN { FS = ":.*## " } /^[a-z]+:.*## / { printf "  make %-6s  %s\n", $$1, $$2 }' Makefile

setup: $(READY) ## create .venv with the project and its tools

demo: $(READY) ## ask this repository (REPO=... for another) a handful of questions, each twice
	$(BIN)/anabranch demo $(if $(REPO),--repo "$(REPO)")

test: check ## lint, types, and all tests (ARGS="-k join" for some)
	$(BIN)/python -m pytest $(ARGS)

check: $(READY) ## lint, format, imports, types and schemas, without tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy
	$(BIN)/python -m anabranch.schemas --check

fix: $(READY) ## repair what can be repaired, format, and generate the schemas
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/python -m anabranch.schemas

kafka: $(READY) ## run a real Apache Kafka as a local process (needs Java 17 and Maven)
	$(BIN)/anabranch broker --kafka

bench: $(READY) ## measure throughput, CPU and latency beside relays and peers (ARGS=--quick)
	$(PIP) --group bench
	$(BIN)/python benchmarks/end_to_end.py $(ARGS)

chaos: $(READY) ## kill, freeze and restart everything under load (SEED= QUERIES= FAULTS= MODE=)
	PYTHONPATH=tests/chaos:tests/e2e $(BIN)/python tests/chaos/chaos_run.py $(if $(SEED),--seed $(SEED)) \
		$(if $(QUERIES),--queries $(QUERIES)) $(if $(FAULTS),--faults $(FAULTS)) \
		$(if $(MODE),--mode $(MODE))

fuzz: $(READY) ## 100,000 mutated records on every topic of a running pipeline (COUNT= SEED=)
	FUZZ=$(or $(COUNT),100000) FUZZ_SEED=$(or $(SEED),1) $(BIN)/python -m pytest -s tests/chaos/test_fuzz.py

soak: $(READY) ## half an hour under a steady load: nothing may grow (MINUTES=)
	SOAK_MINUTES=$(or $(MINUTES),30) $(BIN)/python -m pytest tests/chaos/test_soak.py

$(READY): pyproject.toml constraints.txt
	@for python in $(PYTHON) python3 python3.13 python3.12 python3.11; do \
		if $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then \
			echo "setting up $(VENV) with $$($$python --version)"; \
			exec $$python -m venv $(VENV); \
		fi; \
	done; \
	echo "Python 3.11 or newer is needed: make PYTHON=/path/to/python" >&2; exit 1
	$(PIP) --upgrade pip
	$(PIP) --editable . --group dev
	@touch $@
