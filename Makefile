# Every target creates or reuses .venv by itself. `make test VENV=/path/to/venv` (or X2VLM_VENV in the environment) uses an
# environment of yours as it is; `make PYTHON3=/path/to/python3.12` chooses the Python that .venv is made with.

VENV ?= $(or $(X2VLM_VENV),.venv)
PYTHON := $(VENV)/bin/python
PYTHON3 ?=

ifeq ($(VENV),.venv)
DEMO_READY := .venv/.installed-demo
DEV_READY := .venv/.installed-dev
endif

.DEFAULT_GOAL := help
.PHONY: help install demo test load lint format bench train-mini-smoke clean

help:  ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | awk -F'|' '{printf "%-24s%s\n", $$1, $$2}'

install: $(DEV_READY)  ## make .venv ready for everything below (each target does so by itself)

demo: $(DEMO_READY)  ## open the app on http://127.0.0.1:7860; flags in ARGS="--port 7861"
	$(PYTHON) app.py $(ARGS)

# Two processes of one torch thread each: more threads a process gain nothing for models this small.
test: $(DEV_READY)  ## run the tests; a part of them with ARGS="tests/x2vlm -k caption"
	OMP_NUM_THREADS=1 $(PYTHON) -m pytest -n 2 --dist loadfile $(ARGS)

load: $(DEV_READY)  ## run the app's load tests at full size, minutes on a quiet machine
	$(PYTHON) -m pytest -m load tests/app $(ARGS)

lint: $(DEV_READY)  ## check style and formatting
	$(PYTHON) -m ruff check .
	$(PYTHON) -m ruff format --check .

format: $(DEV_READY)  ## repair style and formatting
	$(PYTHON) -m ruff check --fix .
	$(PYTHON) -m ruff format .

BENCH ?= inference training app
bench: $(DEV_READY)  ## measure speed and memory; one benchmark with BENCH=inference
	set -e; for name in $(BENCH); do $(PYTHON) -m benchmarks.$$name $(ARGS); done

train-mini-smoke: $(DEV_READY)  ## run the whole training pipeline at toy scale, under five minutes on two cores
	$(PYTHON) -m train.smoke $(ARGS)

clean:  ## remove .venv and what tools left behind
	rm -rf .venv .pytest_cache .ruff_cache .hypothesis build x2vlm.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

.venv/bin/python:
	@set -e; for python in $(PYTHON3) python3 python3.13 python3.12 python3.11; do \
	    if $$python -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then \
	        echo "creating .venv with $$($$python --version)"; \
	        $$python -m venv .venv || { rm -rf .venv; echo "On Debian and Ubuntu install python3-venv first." >&2; exit 1; }; \
	        exit 0; \
	    fi; \
	done; \
	echo "X2-VLM needs Python 3.11, 3.12 or 3.13; found: $$(python3 --version 2>&1 || true)." \
	     "Install one of them, or name it: make PYTHON3=/path/to/python3.12" >&2; exit 1

# A venv made elsewhere has only bin/python to depend on; its date says nothing, so it is order-only.
.venv/.installed-demo: requirements.txt | .venv/bin/python
	.venv/bin/python -m pip install -r requirements.txt
	@touch $@

.venv/.installed-dev: requirements.txt requirements-dev.txt pyproject.toml | .venv/bin/python
	.venv/bin/python -m pip install -r requirements-dev.txt
	@touch $@ .venv/.installed-demo
