PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help install demo test-fast test coverage test-all test-package docs web check clean
PYTEST := $(BIN)/python -m pytest -n 2 --dist worksteal
QUICK := -m "not slow and not ray and not browser"

help: ## print this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## make .venv and install foveate into it, from the pinned constraints

$(VENV)/.installed: pyproject.toml constraints.txt
	@test -d $(VENV) || $(PYTHON) -m venv $(VENV)
	@# torch first and alone: resolved together with others, some pips prefer the CUDA build
	$(PIP) torch
	$(PIP) --editable .
	@touch $@

$(VENV)/.test: $(VENV)/.installed
	$(PIP) --editable ".[test]"
	@touch $@

$(VENV)/.browser: $(VENV)/.test
	$(PIP) --editable ".[browser]"
	@touch $@

$(VENV)/.check: $(VENV)/.installed
	$(PIP) --editable ".[check]"
	@touch $@

$(VENV)/.docs: $(VENV)/.installed
	$(PIP) --editable ".[docs]"
	@touch $@

demo: $(VENV)/.installed ## train on handwritten digits and show the results and the report, in under a minute
	$(BIN)/foveate train digits

test-fast: $(VENV)/.test ## run the quick tests of single modules, without pages, servers and whole journeys
	$(PYTEST) $(QUICK) $(addprefix --ignore=tests/,integration report serving)

test: $(VENV)/.test ## run the tests that a change needs, in about ten minutes on two cores
	$(PYTEST) $(QUICK)

coverage: $(VENV)/.test ## the same tests, half as long again, with branch coverage: 90 % at least
	$(PYTEST) $(QUICK) --cov --cov-report=term-missing:skip-covered --cov-fail-under=90

test-all: $(VENV)/.browser ## run the others: slow ones, Ray clusters, pages in Debian's chromium
	@# a third of their time they wait for processes that they started: three at a time keep two cores busy
	$(PYTEST) -n 3 -m "slow or ray or browser"

test-package: ## build the sdist and the wheel, and train on digits from the wheel in an environment of its own
	rm -rf dist build/package
	$(PYTHON) -m venv build/package
	build/package/bin/python -m pip install --quiet build
	build/package/bin/python -m build --quiet
	build/package/bin/python -m pip install --quiet --no-compile --constraint constraints.txt torch
	build/package/bin/python -m pip install --quiet --no-compile --constraint constraints.txt dist/*.whl
	cd build/package && bin/foveate train digits --set images_seen=8000

docs: $(VENV)/.docs ## build the docs as a site, in site/
	$(BIN)/zensical build --strict

web: web/ort.wasm.bundle.min.mjs ## fetch onnxruntime-web from npm, which `foveate export --web` puts into its page

web/ort.wasm.bundle.min.mjs:
	@mkdir -p web
	cd web && npm pack --silent onnxruntime-web@1.30.0
	cd web && echo "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71  onnxruntime-web-1.30.0.tgz" | sha256sum --check --quiet
	tar xzf web/onnxruntime-web-1.30.0.tgz -C web --strip-components=2 package/dist/ort-wasm-simd-threaded.wasm package/dist/ort.wasm.bundle.min.mjs
	@rm web/onnxruntime-web-1.30.0.tgz
	@touch $@

check: $(VENV)/.check ## ruff, mypy (strict) and the import contracts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

clean: ## remove what the targets made, except runs/
	rm -rf $(VENV) build dist site .cache src/*.egg-info .coverage* .hypothesis .mypy_cache .pytest_cache .ruff_cache
