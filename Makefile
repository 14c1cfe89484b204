# The two commands a newcomer needs are `make demo` and `make test`; both set themselves up.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.PHONY: help install demo table test test-all lint types format docs wheel clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

$(BIN)/vidtrain: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10) and "vidtrain requires Python >= 3.10: make PYTHON=python3.12")'
	@echo "installing vidtrain and PyTorch into $(VENV) (a few minutes, up to 6 GB)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install -qq --upgrade pip
	@$(BIN)/python -m pip install -qq --editable '.[dev]'
	@touch $@

install: $(BIN)/vidtrain  ## Create .venv and install vidtrain with its tools

demo: install  ## Make the built-in dataset, train slow_fusion on it, test it with 10 clips, print the table
	$(BIN)/vidtrain train experiment=demo

table: install  ## The fusion ladder on the built-in dataset: single frame, late, early, slow (a few minutes each)
	$(BIN)/vidtrain train -m experiment=demo model=single_frame,late_fusion,early_fusion,slow_fusion

# with bytecode, also where the shell has switched it off: else each process compiles all tests and the package again
PYTEST := env -u PYTHONDONTWRITEBYTECODE OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

# beside the tests, which leave a processor idle now and then: mypy reads PyTorch, a minute where it has not before
TYPES_BESIDE = $(BIN)/mypy >$(VENV)/types.txt 2>&1 & types=$$!; \
	$(1); tests=$$?; wait $$types; types=$$?; cat $(VENV)/types.txt; exit $$((tests ? tests : types))

test: install lint  ## Lint, types, tests (without the slow ones)
	$(call TYPES_BESIDE,$(PYTEST))

test-all: install lint  ## All tests
	$(call TYPES_BESIDE,$(PYTEST) -m '')

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: install
	$(BIN)/mypy

format: install  ## Put the code into the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

docs: install  ## The documentation as a site in build/site; needs mkdocs-material (pip install -e '.[docs]')
	$(BIN)/python -m mkdocs build --quiet

wheel:  ## Build dist/vidtrain-*.whl from the last commit; the same commit gives the same bytes
	@rm -rf build/wheel; umask 022; mkdir -p build/wheel dist; git archive HEAD | tar -x -C build/wheel; \
	SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(PYTHON) -m pip wheel -q --no-deps -w dist build/wheel; rm -rf build/wheel

clean:  ## Remove .venv and caches; data/ and runs/ stay
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
