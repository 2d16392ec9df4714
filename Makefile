# What a newcomer needs is the first two; everything else is for those who work on pyweb.
PYTHON ?= python3
PORT ?= 8000
VENV := .venv
# One more than there are CPUs: many tests wait.
WORKERS := $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1)
BIN := $(VENV)/bin
BUILT_FROM := pyproject.toml setup.py $(wildcard src/pyweb/*.pyx src/pyweb/*.pxd src/pyweb/*.h)

.PHONY: help serve test lab-test lint format bench soak life wheel clean

help: ## this list
	@sed -n 's/^\([a-z-]*\):.*## /  make \1\t/p' Makefile | expand -t 18

serve: $(VENV)/.serve ## set up what is needed and serve the example site
	@$(BIN)/python tools/make_example.py
	@exec $(BIN)/pyweb $(PORT) example

test: $(VENV)/.test ## set up what is needed and run the tests
	@$(BIN)/pytest --numprocesses $(WORKERS) --dist worksteal || \
	  { echo 'What failed beside others, once more and alone (a defect fails again):'; \
	    $(BIN)/pytest --last-failed --last-failed-no-failures none; }

lab-test: $(VENV)/.test ## does the laboratory find costs that are planted? (3 minutes)
	@$(BIN)/pytest -p no:xdist --timeout 0 tests_lab || \
	  { echo 'What failed in a noisy minute, measured once more (a defect fails again):'; \
	    $(BIN)/pytest -p no:xdist --timeout 0 --last-failed --last-failed-no-failures none tests_lab; }

lint: $(VENV)/.lint ## ruff, mypy, cython-lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PATH=$(BIN):$$PATH cython-lint src/pyweb/*.pyx src/pyweb/*.pxd

format: $(VENV)/.lint ## let ruff lay out the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.test ## run the benchmarks
	$(BIN)/pytest --timeout 0 benchmarks --benchmark-enable --benchmark-only --benchmark-sort=name

soak: $(VENV)/.test ## 200,000 connections in each mode: does anything grow? (20 minutes)
	PYWEB_SOAK=200000 $(BIN)/pytest --timeout 0 -s tests/test_soak.py

life: $(VENV)/.test ## 20 reloads and 3 upgrades under each load, in each mode (15 minutes)
	PYWEB_LIFE=long $(BIN)/pytest --timeout 0 -s tests/test_life.py tests/test_lossless.py

wheel: $(VENV)/.test ## build the sdist, and the wheel from it, into dist/
	$(BIN)/python -m build --quiet 2>/dev/null || $(BIN)/python -m build
	@ls dist

clean: ## remove what was made
	rm -rf $(VENV) build dist src/*.egg-info src/pyweb/*.so example/large.bin example/*.gz \
	  .hypothesis .pytest_cache .mypy_cache .ruff_cache .benchmarks
	find . -name __pycache__ -prune -exec rm -rf {} +

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo '$(PYTHON): not found, or older than Python 3.11: make PYTHON=...' >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
	  echo 'no venv module: on Debian, apt install python3-venv' >&2; exit 1; }

# Editable, so that a change is served at once. Without a C compiler: the pure-Python engine.
INSTALL = $(BIN)/pip install --quiet --disable-pip-version-check --editable
comma := ,
define install
	@echo 'pyweb: setting up ($@)'
	@$(INSTALL) '.$(1)' 2>$(VENV)/log || \
	  if $(BIN)/python tools/can_compile.py; then cat $(VENV)/log >&2; exit 1; else \
	  echo 'pyweb: no C compiler or no Python headers: building the pure-Python engine (for the' >&2; \
	  echo '  compiled one: apt install gcc python3-dev, then make clean)' >&2; \
	  PYWEB_PURE=1 $(INSTALL) '.$(1)'; fi
	@touch $@
endef

$(VENV)/.serve: $(VENV)/bin/python $(BUILT_FROM)
	$(call install,)
$(VENV)/.test: $(VENV)/bin/python $(BUILT_FROM)
	$(call install,[test])
$(VENV)/.lint: $(VENV)/bin/python $(BUILT_FROM)
	$(call install,[test$(comma)lint])
	@touch $(VENV)/.test $(VENV)/.serve  # it has all that they have
