# `make demo`, `make demo-text` and `make test` need nothing but python3 (3.11 or newer) and make: the first call of any
# sets everything up through tools/setup.sh, later calls find .venv/.ready and go straight to work.

VENV  := .venv
READY := $(VENV)/.ready
BIN   := $(VENV)/bin
DEMO  := dense topk self routing_free
BENCHMARKS := moe_layer peers train_step statistics augmentation
PYTHON ?= python3
FUZZ_SECONDS ?= 300
# A process a core (four at most), a file at a time in each, so that what a file sets up is set up once; in the order of
# the folders, since the slowest files have few tests and must not come last.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.DEFAULT_GOAL := help
.PHONY: help demo demo-text test test-slow faults fuzz bench bench-gpu lint lock clean

help:
	@echo "make demo       train four variants on handwritten digits; a page of each, and of all"
	@echo "make demo-text  the same with a small GPT-2 on Python's own sources, and where a text's tokens go"
	@echo "make test       the tests"
	@echo "make test-slow  the long ones"
	@echo "make faults     runs that are killed, starved and fed with errors, and whether they go on to the same end"
	@echo "make fuzz       read mutated files of every kind for FUZZ_SECONDS (300)"
	@echo "make bench      layers, whole steps and other libraries' layers, timed on this machine's CPU (10 minutes)"
	@echo "make bench-gpu  the same on a GPU, with PYTHON's own torch, triton, timm and transformers"
	@echo "make lint       ruff, its formatter and mypy"
	@echo "make lock       pin the newest versions that pyproject.toml allows in requirements.lock"
	@echo "make clean      remove $(VENV), caches and builds, but no runs"

# The check that a set-up is complete ends tools/setup.sh, so this file appears only after it.
$(READY): requirements.lock pyproject.toml
	@tools/setup.sh $(VENV)
	@touch $@

demo: $(READY)
	rm -rf runs/demo
	$(BIN)/vmoe train $(DEMO:%=configs/demo/%.yaml)
	$(BIN)/vmoe eval $(DEMO:%=runs/demo/%/checkpoints/last.pt)
	$(BIN)/vmoe report $(DEMO:%=runs/demo/%)
	$(BIN)/vmoe compare $(DEMO:%=runs/demo/%) --output runs/demo/comparison

demo-text: $(READY)
	rm -rf runs/demo_text
	$(BIN)/vmoe train $(DEMO:%=configs/demo_text/%.yaml)
	$(BIN)/vmoe report $(DEMO:%=runs/demo_text/%)
	$(BIN)/vmoe compare $(DEMO:%=runs/demo_text/%) --output runs/demo_text/comparison
	$(BIN)/vmoe inspect runs/demo_text/topk/checkpoints/last.pt --text train_imagenet.py

test: $(READY)
	$(PYTEST)

test-slow: $(READY)
	$(PYTEST) -m slow

faults: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tests/faults/faults.py
	OMP_NUM_THREADS=1 $(BIN)/python tests/faults/campaign.py --output docs/results/kill_campaign.md

fuzz: $(READY)
	OMP_NUM_THREADS=1 $(BIN)/python tests/hostile/fuzz.py --seconds $(FUZZ_SECONDS)

bench: $(READY)
	for question in $(BENCHMARKS); do $(BIN)/python -m benchmarks.$$question --device cpu || exit 1; done

# No set-up of its own: a machine with a GPU has its own torch.
bench-gpu:
	for question in $(BENCHMARKS); do $(PYTHON) -m benchmarks.$$question --device cuda || exit 1; done

lint: $(READY)
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

lock: $(READY)
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --extra dev --no-annotate --no-header pyproject.toml -o requirements.lock

clean:
	rm -rf $(VENV) build dist *.egg-info .hypothesis .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
