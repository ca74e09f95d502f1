# Everything on a machine with Python >= 3.11 and make.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUNS ?= 20
EXAMPLES ?= 20000
JOBS ?= 20000
SECONDS ?= 600

.PHONY: help demo test lint format crash fuzz soak bench screenshots clean

help:            ## list the targets
	@grep -hE '^[a-z]+: .*##|^[a-z]+:  *##' $(MAKEFILE_LIST) | sed 's/:[^#]*##/\t/'

demo: $(VENV)/.fetcher   ## fetch 12,000 URLs of a simulated web
	$(BIN)/fetcher demo

test: $(VENV)/.dev   ## run every test
	$(BIN)/python -m pytest -n 3 --dist worksteal

lint: $(VENV)/.dev   ## style, types, layers, Dockerfile
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/hadolint Dockerfile

format: $(VENV)/.dev   ## put code into shape
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

crash: $(VENV)/.dev   ## kill runs RUNS times at random moments and reconcile
	CRASHES=$(RUNS) $(BIN)/python -m pytest tests/acceptance/test_crash.py

fuzz: $(VENV)/.dev   ## feed EXAMPLES mutated responses to the transport
	FUZZ=$(EXAMPLES) $(BIN)/python -m pytest tests/integration/test_fuzz.py

soak: $(VENV)/.dev   ## 10,000 jobs of each protocol, and batches of JOBS jobs whose sinks are away for part of the time
# By themselves, as each job of ftp takes two ports, of which there are some 28,000 a minute.
	TRANSPORT_JOBS=10000 $(BIN)/python -m pytest --timeout 600 tests/contract/test_transports.py -k "nothing_leaks and ftp"
	TRANSPORT_JOBS=10000 $(BIN)/python -m pytest --timeout 600 tests/contract/test_transports.py -k "nothing_leaks and not ftp"
	SOAK=$(JOBS) $(BIN)/python -m pytest --timeout 3600 tests/acceptance/test_stored_outages.py tests/acceptance/test_stream_outages.py tests/acceptance/test_outage_memory.py
	SOAK_SECONDS=$(SECONDS) $(BIN)/python -m pytest -s tests/acceptance/test_serve_soak.py

bench: $(VENV)/.dev   ## measure against blocking sockets and peers, in short (python -m benchmarks has more)
	$(BIN)/python -m benchmarks small --repeat 2
	$(BIN)/python -m benchmarks latency --repeat 1 --requests 5000
	$(BIN)/python -m benchmarks scale

screenshots: $(VENV)/.dev   ## pictures of the page of the service into build/screenshots
	$(BIN)/python -m tests.browser.screenshots build/screenshots

clean:   ## remove the virtual environment and caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "fetcher needs Python 3.11 or later; set PYTHON=")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.fetcher: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e .
	touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt --no-deps httpbin
	touch $@ $(VENV)/.fetcher
