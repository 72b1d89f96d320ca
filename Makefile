# The Literate Transformer. `make` alone lists what there is.
#
#   PYTHON   the Python that .venv is made with (3.11 to 3.13)
#   PY       a Python that has everything already; no .venv is made then
PYTHON ?= python3
ifdef PY
export PYTHONPATH := $(CURDIR)/src
INSTALL = true
else
PY := .venv/bin/python
INSTALL = $(PYTHON) src/bookkit/install.py
endif
BOOKKIT = $(PY) -m bookkit
.DEFAULT_GOAL := help
.PHONY: help env export run book test lint fix serve study progress bench diagrams hooks clean

help:      ## this list
	@sed -n 's/^\([a-z]*\): .*## \(.*\)/  make \1\t\2/p' Makefile | expand -t 17

env:       ## the virtual environment .venv with everything pinned
	@$(INSTALL)

book: env  ## install, run what changed, build the site, say where it is
	@$(BOOKKIT) export && $(BOOKKIT) run && $(BOOKKIT) study && $(BOOKKIT) site

test: env  ## prove everything: package, chapters, exercises, site
	@$(BOOKKIT) test

serve: book ## the site on localhost, rebuilt on every save
	@$(BOOKKIT) site --serve

study: env ## JupyterLab on the learner's notebooks
	@$(BOOKKIT) export && $(BOOKKIT) run && $(BOOKKIT) study
	@JUPYTER_CONFIG_PATH="$(CURDIR)/book/_lab" $(PY) -m jupyterlab --ServerApp.root_dir="$(CURDIR)/_build/study"

progress: env ## which exercises are solved
	@$(BOOKKIT) progress

export: env ## write src/litformer from the chapters
	@$(BOOKKIT) export

run: env   ## execute the chapters that changed
	@$(BOOKKIT) run

lint: env  ## lint the package, the tools and the chapters' cells
	@$(BOOKKIT) lint

fix: env   ## lint, and mend what can be mended
	@$(BOOKKIT) lint --fix

bench: env ## ratios of time and memory against peers
	@OMP_NUM_THREADS=1 $(PY) -m pytest tests/benchmarks -o python_files='bench_*.py' -q -s

diagrams: env ## draw the mermaid diagrams (needs Chromium)
	@$(BOOKKIT) diagrams

hooks:     ## check export and lint before every commit of this clone
	@git config core.hooksPath .githooks && echo "hooks: .githooks is on"

# what a person typed stays: study notebooks, and hand edits that export kept
clean:     ## remove what was built; notebooks, progress and .venv stay
	@[ ! -d _build ] || find _build -mindepth 1 -maxdepth 1 ! -name study ! -name replaced -exec rm -rf {} +
	@rm -rf .pytest_cache .ruff_cache .hypothesis
	@find src tests book -name __pycache__ -type d -prune -exec rm -rf {} +
