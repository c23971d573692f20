# make demo   run the main job on a generated slide and say where the report is
# make test   lint, types and all tests
# make docs   the docs as a site: site/index.html
# make soak   faults by the hour: kills, damaged inputs, a cohort under fire; goes on where it was stopped
# They make .venv from requirements.lock when it is missing or stale. Needed: Python >= 3.11, make, a package index.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.from-lock
SHELL := /bin/bash

export PATH := $(CURDIR)/$(BIN):$(PATH)
# many short processes run: without byte code on disk each would compile what it imports
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test docs lint soak clean

demo: $(STAMP)
	gigaseg demo --out demo
	snakemake --cores all --resources gpu=1 --quiet rules --config slides=demo/slides.tsv results=demo/results
	gigaseg evaluate demo/results/demo/instances.parquet demo/slide.geojson --out demo/results/demo/scores.json
	@python -c 'import json; f = json.load(open("demo/results/demo/scores.json"))["figures"]; \
	print("found {:.0f} nuclei, true {:.0f}, F1 at IoU 0.5: {:.3f}".format(*(f[k]["value"] for k in ("predicted_objects", "truth_objects", "f1_50"))))'
	@echo "report: $(CURDIR)/demo/results/report.html"
	@echo "look at it: $(BIN)/gigaseg view demo/results"

test: $(STAMP) lint
	pytest -n 2 --dist worksteal

docs: $(STAMP)
	mkdocs build --strict --quiet
	@echo "docs: $(CURDIR)/site/index.html; with search: python -m http.server --directory site"

soak: $(STAMP)
	python benchmarks/kills.py
	python benchmarks/fuzz.py
	python benchmarks/soak.py

lint: $(STAMP)
	ruff check .
	ruff format --check .
	mypy
	snakefmt --check Snakefile workflow
	snakemake --lint

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "gigaseg needs Python >= 3.11, found " + sys.version.split()[0] + "; set PYTHON=...")'
	$(PYTHON) -m venv --clear $(VENV)
	$(BIN)/python -m pip install -qq --no-compile --requirement requirements.lock
	$(BIN)/python -m pip install -qq --no-deps --editable .
	touch $@

clean:
	rm -rf $(VENV) site demo results .snakemake benchmarks/work
