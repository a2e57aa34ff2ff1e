# Every target works on a fresh machine with Python 3.11 and git; the first one makes .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MINISTACK := .emulators/ministack-1.5.33
ARGS ?=
ONLY ?=

.PHONY: demo up test test-long check format coverage mutate bench docs emulators machine-image clean

demo: $(VENV)/.base
	$(BIN)/orchctl demo $(ARGS)

up: $(VENV)/.base
	$(BIN)/orchctl up --config examples/quickstart.yaml $(ARGS)

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

test-long: $(VENV)/.dev
	ORCHCTL_LONG=1 $(BIN)/python -m pytest -n 2 --dist loadgroup $(ARGS)

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

coverage: $(VENV)/.dev
	$(BIN)/python -m pytest tests/unit/core tests/property --cov --cov-report=term --cov-fail-under=95 $(ARGS)

mutate: $(VENV)/.dev
	$(BIN)/mutmut run $(ARGS)
	$(BIN)/mutmut results

bench: $(VENV)/.dev
	$(BIN)/python -m bench.$(ONLY) $(ARGS)

docs: $(VENV)/.dev
	$(BIN)/python -m docs.generate

# What stands for a cloud in tests, in an environment of its own; tests without it skip.
emulators: $(MINISTACK)/.installed

# What boots in tests of machines, as a container; needs root, podman, runc and debootstrap.
machine-image: $(VENV)/.dev
	$(BIN)/python -m tests.agent.image

clean:
	rm -rf $(VENV) .emulators mutants

# uv makes environments in seconds; where it cannot be had, pip does the same more slowly.
$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "orchctl needs Python 3.11 or newer (PYTHON=/path/to/python make …)")'
	$(PYTHON) -m venv $(VENV)
	-$(BIN)/python -m pip install --quiet --disable-pip-version-check uv

install-into = $(shell test -x $(BIN)/uv && echo "$(BIN)/uv pip install --quiet --python $(1)/python" || echo "$(1)/python -m pip install --quiet --disable-pip-version-check")
INSTALL = $(call install-into,$(BIN))

$(VENV)/.base: pyproject.toml | $(VENV)/bin/python
	$(INSTALL) -e .
	touch $@

$(VENV)/.dev: pyproject.toml $(VENV)/.base
	$(INSTALL) -e '.[dev]'
	touch $@

$(MINISTACK)/.installed: | $(VENV)/bin/python
	$(PYTHON) -m venv --clear $(@D)
	$(call install-into,$(@D)/bin) ministack==1.5.33 cryptography
	touch $@
