# `make run` and `make test` need Python 3.11 or later and nothing else: the stores come as wheels.

.PHONY: setup run test faults bench drop docs lint
.DELETE_ON_ERROR:

PYTHON ?= python3
VENV := .venv
INSTALLED := $(VENV)/.installed

# Where `make run` keeps everything, and where it listens: make run DATA_DIR=/var/lib/flashhold PORT=9000
DATA_DIR ?= ./flashhold-data
PORT ?= 8000
# The drop's size: make drop UNITS=500 BUYERS=5000
UNITS ?= 500
BUYERS ?= 5000
# Some benches, on one kind of server: make bench ONLY=engine,http SERVER=valkey
ONLY ?=
SERVER ?=
# How long to break things: make faults MINUTES=60
MINUTES ?= 10
# Processes that test side by side, each with stores of its own: make test TESTERS=0 ARGS="tests/stories -x --pdb"
TESTERS ?= 2
# More for the programs behind the targets: make test ARGS="tests/stories -x"
ARGS ?=

setup: $(INSTALLED)

# Again only when the dependencies change; the code itself is used where it stands.
#
# The environment is made without pip, because Debian's Python has none to put into it unless python3-venv is
# installed. Whatever installer the machine has then fills it, from outside (which an "externally managed" Python
# allows) or from inside; root on a Debian without any gets pip from there. The development tools are read from
# pyproject.toml here: pip knows dependency groups only since 25.1.
WHAT := -e . -r $(VENV)/development.txt
QUIET := --quiet --disable-pip-version-check
HAS_PIP := $(PYTHON) -m pip --python $(VENV)/bin/python --version >/dev/null 2>&1
FROM_DEBIAN := command -v apt-get >/dev/null && test "$$(id -u)" = 0 && apt-get update -qq && apt-get install -y -qq python3-pip >/dev/null

$(INSTALLED): pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "FlashHold needs Python 3.11 or later; say which one: make PYTHON=...")'
	@echo "Setting up $(VENV); the first time this takes a minute."
	@$(PYTHON) -m venv --without-pip $(VENV)
	@$(VENV)/bin/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["dependency-groups"]["dev"], sep="\n")' > $(VENV)/development.txt
	@if $(HAS_PIP); then \
	    $(PYTHON) -m pip --python $(VENV)/bin/python install $(QUIET) $(WHAT); \
	elif command -v uv >/dev/null; then \
	    uv pip install --quiet --python $(VENV)/bin/python $(WHAT); \
	elif $(VENV)/bin/python -m ensurepip >/dev/null 2>&1; then \
	    $(VENV)/bin/python -m pip install $(QUIET) $(WHAT); \
	elif { $(FROM_DEBIAN); } && $(HAS_PIP); then \
	    $(PYTHON) -m pip --python $(VENV)/bin/python install $(QUIET) $(WHAT); \
	else \
	    echo "There is no pip here. Install it, for example: sudo apt-get install python3-pip" >&2; exit 1; \
	fi
	@touch $@

run: $(INSTALLED)
	@exec $(VENV)/bin/flashhold up --data-dir "$(DATA_DIR)" --port $(PORT)

test: $(INSTALLED)
	@exec $(VENV)/bin/python -m pytest -n $(TESTERS) --dist loadfile $(ARGS)

faults: $(INSTALLED)
	@exec $(VENV)/bin/python -m tests.faults.run --minutes $(MINUTES) $(ARGS)

bench: $(INSTALLED)
	@exec $(VENV)/bin/python -m loadtests.bench $(if $(ONLY),--only $(ONLY)) $(if $(SERVER),--server $(SERVER)) $(ARGS)

drop: $(INSTALLED)
	@exec $(VENV)/bin/python -m loadtests.drop --units $(UNITS) --buyers $(BUYERS) $(ARGS)

docs: $(INSTALLED)
	@$(VENV)/bin/python docs/generate.py

lint: $(INSTALLED)
	$(VENV)/bin/ruff check src tests loadtests docs
	$(VENV)/bin/ruff format --check src tests loadtests docs
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports
