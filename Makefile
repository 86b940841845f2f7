# The commands of README and of CI. `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1
# Waiting threads give their core away; on a busy machine small networks are several times faster so.
export OMP_WAIT_POLICY ?= PASSIVE
export HF_HUB_OFFLINE ?= 1
export TRANSFORMERS_OFFLINE ?= 1
# A process that may not keep what it compiled takes half a second longer to start, and tests start hundreds.
unexport PYTHONDONTWRITEBYTECODE

# SQLite has each commit written to the disk, which is what tests waited for most: they lie in memory if 6 GB are free.
IN_MEMORY := $(shell df -k /dev/shm 2>/dev/null | awk 'NR == 2 && $$4 > 6000000 { print "/dev/shm" }')
# the files with tests of a mark: importing all others takes longer than most of these tests
MARKED = $(shell grep -rl --include='test_*.py' 'mark\.$(1)' tests | sort)
PYTEST := TMPDIR=$(or $(TMPDIR),$(IN_MEMORY),/tmp) $(BIN)/python -m pytest -q

DENO := $(BIN)/deno
EDGE := --config supabase/functions/deno.json supabase/functions supabase/gateway

.PHONY: help setup demo demo-tiny supabase supabase-down test test-slow check format docs bench chaos clean

help:  ## list the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1\t/' | expand -t 14

setup: $(VENV)/.installed  ## make the virtual environment and install everything, with pinned versions

$(VENV)/.installed: pyproject.toml constraints.txt supabase/functions/deno.lock
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	-$(BIN)/python -m Wan2GP.models fetch rife
	-$(BIN)/python -m Wan2GP.models fetch pose
	-$(BIN)/python -m Wan2GP.models fetch person_mask
	-$(DENO) install --quiet --frozen --config supabase/functions/deno.json
	@touch $@

demo: setup  ## travel between three photos, on this machine's CPU
	@OMP_NUM_THREADS=$$(nproc) $(BIN)/python scripts/demo.py

demo-tiny: setup  ## the same travel on drawn shapes, by diffusion, with the tiny Wan that ships
	@OMP_NUM_THREADS=$$(nproc) $(BIN)/python scripts/demo.py --tiny

supabase: setup  ## start Supabase on this machine: database, Edge Functions, storage; prints what to export
	@$(BIN)/python -m source.devstack up

supabase-down: setup  ## stop it; its data stays in .devstack
	@$(BIN)/python -m source.devstack down

test: setup  ## unit, contract, integration and acceptance tests
	$(PYTEST) -n 2 --dist loadfile --no-loadscope-reorder -m "not slow and not gpu"

test-slow: setup  ## tests that take minutes
	$(PYTEST) -n 2 --dist loadfile --no-loadscope-reorder -m "slow and not alone and not gpu" $(call MARKED,slow)
	$(PYTEST) -m "alone and not gpu" $(call MARKED,alone)

check: setup  ## lint, format, types, layers, SQL, Edge Functions, containers, generated documentation
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/squawk supabase/migrations/*.sql
	$(DENO) fmt --quiet --check $(EDGE)
	$(DENO) lint --quiet $(EDGE)
	$(DENO) check --quiet --frozen $(EDGE)
	$(BIN)/hadolint deploy/Dockerfile
	$(BIN)/check-jsonschema --builtin-schema vendor.compose-spec deploy/compose.yaml deploy/compose.gpu.yaml
	$(BIN)/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/ci.yml
	$(BIN)/python scripts/document.py --check

format: setup  ## mend what `make check` says of style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(DENO) fmt --quiet $(EDGE)

docs: setup  ## write the generated parts of the documentation
	$(BIN)/python scripts/licences.py
	$(BIN)/python scripts/document.py

bench: setup  ## run the benchmarks that need no GPU, and write benchmarks/README.md
	$(BIN)/python benchmarks/collect.py

chaos: setup  ## kill, stop and cut off workers on SQLite and Postgres for a while, and check what they did
	$(BIN)/python debug.py chaos --faults 200 --on sqlite --on stack --report docs/chaos-report.md
	CHAOS_MINUTES=3 CHAOS_SEEDS=3 $(BIN)/python -m pytest -q -s -m slow tests/chaos/test_random_kills.py \
		tests/chaos/test_kill_points.py

clean:  ## remove what the demo made
	rm -rf demo
