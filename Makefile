# Every target works on a fresh machine with Python 3.11 and git; the first one makes .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MINISTACK := .emulators/ministack-1.5.33
TERRAFORM_PROVIDERS := .emulators/tf-1.2.0
INFRA_LINTERS := .emulators/checkov-3.3.30
ARGS ?=
ONLY ?=
ARCH ?= x86_64
ENGINE ?= $(shell command -v podman || command -v docker || echo podman)

.PHONY: demo up test test-long check format coverage mutate bench docs emulators machine-image lambda lambda-image lambda-lock deploy clean

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

# What stands for a cloud in tests, what Terraform takes for its providers, and what looks at
# templates, each in an environment of its own; tests without them skip.
emulators: $(MINISTACK)/.installed $(TERRAFORM_PROVIDERS)/.installed $(INFRA_LINTERS)/.installed

# What boots in tests of machines, as a container; needs root, podman, runc and debootstrap.
machine-image: $(VENV)/.dev
	$(BIN)/python -m tests.agent.image

# One zip for all functions of serverless.yml; the Python here must be the runtime's.
lambda: $(VENV)/.dev
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python infra/lambda/build.py $(ARGS)

# The same files as a container image, on AWS's base for the Python here; ARCH=arm64 for Graviton,
# ARGS="--build-arg BASE=…" for another base. Nothing runs in it, so either kind is built on any.
lambda-image: $(VENV)/.dev
	rm -rf dist/lambda-$(ARCH)
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python infra/lambda/build.py --arch=$(ARCH) --directory=dist/lambda-$(ARCH)
	BUILDX_NO_DEFAULT_ATTESTATIONS=1 $(ENGINE) build --platform=linux/$(ARCH:x86_64=amd64) --tag=orchctl-lambda:$(ARCH) \
	  --build-arg PYTHON=$$($(BIN)/python -c 'import sys; print("{}.{}".format(*sys.version_info))') \
	  $(ARGS) --file=infra/lambda/Containerfile dist/lambda-$(ARCH)

lambda-lock: $(VENV)/.dev
	$(BIN)/uv pip compile --quiet --universal --upgrade --python-version 3.11 --generate-hashes \
	  --no-header --no-annotate --no-emit-index-url \
	  infra/lambda/requirements.in --output-file infra/lambda/requirements.lock

# To AWS, with the credentials of this shell (docs/how-to/deploy-on-aws.md).
deploy: node_modules/.bin/osls
	node_modules/.bin/osls deploy $(ARGS)

node_modules/.bin/osls: package-lock.json
	npm ci --no-progress
	touch $@

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

$(TERRAFORM_PROVIDERS)/.installed: | $(VENV)/bin/python
	$(PYTHON) -m venv --clear $(@D)
	$(call install-into,$(@D)/bin) tf==1.2.0 boto3
	touch $@

$(INFRA_LINTERS)/.installed: | $(VENV)/bin/python
	$(PYTHON) -m venv --clear $(@D)
	$(call install-into,$(@D)/bin) checkov==3.3.30 cfn-lint==1.58.0
	touch $@
