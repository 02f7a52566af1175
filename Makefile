# Each target does all of its set-up: a .venv made once, the locked packages put into it once.
# Only pip and the network (or pip's cache) are used, and only until the stamps in .venv are newer than the locks.

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check

# The first Python >= 3.11 on the PATH that can make virtual environments; `make PYTHON=... demo` chooses another.
PYTHON ?= $(shell for python in python3 python3.13 python3.12 python3.11 python3.14 python; do \
	$$python -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$python && break; done)

# One thread per test process and one process per core: small networks gain nothing from more threads.
PYTEST := OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest --numprocesses=auto --maxprocesses=4 --dist=worksteal

RUNS := runs/embedded
ASSEMBLE := $(BIN)/sfumato models assemble $(RUNS)/decoder/export $(RUNS)/text/export
WITH := $(BIN)/sfumato models assemble $(RUNS)/decoder/export $(RUNS)/text-further/export
DEFAULTS := --title "the drawn world" --size 128 --steps 20 --guidance 2.5 --overwrite

.PHONY: demo test test-all check format embedded bench clean

demo: $(VENV)/.run
	$(BIN)/sfumato demo

test: $(VENV)/.dev
	$(PYTEST) -m "not slow"

test-all: $(VENV)/.dev
	$(PYTEST)

check: $(VENV)/.dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest --quiet tests/test_arrows.py

format: $(VENV)/.dev
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# Trains what src/sfumato/embedded holds, from nothing: hours on two cores, minutes on a GPU. Interrupt and repeat at will.
embedded: $(VENV)/.run
	$(BIN)/sfumato train reader configs/embedded/reader.toml --resume
	cp runs/reader/export/reader.safetensors src/sfumato/embedded/reader.safetensors
	$(BIN)/sfumato train autoencoder configs/embedded/autoencoder.toml --resume
	$(BIN)/sfumato train text configs/embedded/text.toml --resume
	$(BIN)/sfumato train unet configs/embedded/unet.toml --resume
	$(BIN)/sfumato train unet configs/embedded/unet-further.toml --resume
	$(BIN)/sfumato train autoencoder configs/embedded/decoder.toml --resume
	$(ASSEMBLE) $(RUNS)/unet-further/export $(DEFAULTS) --output $(RUNS)/model-before
	$(BIN)/sfumato train inpainting configs/embedded/inpainting.toml --resume
	$(BIN)/sfumato train unet configs/embedded/unet-imagined.toml --resume
	$(ASSEMBLE) $(RUNS)/unet-imagined/export $(DEFAULTS) --output $(RUNS)/model
	$(BIN)/sfumato train inpainting configs/embedded/inpainting-further.toml --resume
	$(BIN)/sfumato train text configs/embedded/text-further.toml --resume
	$(BIN)/sfumato train unet configs/embedded/unet-natural.toml --resume
	$(BIN)/sfumato train unet configs/embedded/unet-last.toml --resume
	$(WITH) $(RUNS)/unet-last/export $(DEFAULTS) --output $(RUNS)/model-last
	$(BIN)/sfumato train inpainting configs/embedded/inpainting-last.toml --resume
	$(BIN)/sfumato train unet configs/embedded/unet-unseen.toml --resume
	$(BIN)/sfumato train unet configs/embedded/unet-composed.toml --resume
	$(WITH) $(RUNS)/unet-composed/export $(DEFAULTS) --output $(RUNS)/model-composed
	$(BIN)/sfumato train inpainting configs/embedded/inpainting-composed.toml --resume
	$(WITH) $(RUNS)/unet-composed/export $(DEFAULTS) --output src/sfumato/embedded/drawn-world \
		--companion $(RUNS)/inpainting-composed/export/inpainting.safetensors

bench: $(VENV)/.bench
	$(BIN)/python -m bench

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis

$(VENV)/.made:
	@test -n "$(PYTHON)" || { echo "sfumato needs Python 3.11 or newer with the venv module; none was found on the PATH." >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.run: $(VENV)/.made requirements.lock pyproject.toml
	$(PIP) -r requirements.lock
	$(PIP) --no-deps --no-build-isolation --editable .
	@touch $@

$(VENV)/.dev: $(VENV)/.run requirements-dev.lock
	$(PIP) --no-deps -r requirements-dev.lock
	@touch $@

$(VENV)/.bench: $(VENV)/.dev requirements-bench.lock
	$(PIP) --no-deps -r requirements-bench.lock
	@touch $@
