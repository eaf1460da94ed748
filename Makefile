# Everything runs in .venv, which is created from the lock file on first use; nothing is installed by hand.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LOCKED := $(VENV)/.locked

.DEFAULT_GOAL := help
.PHONY: help install demo browser crates test check bench bench-context soak lock clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1\t\2/' | expand -t 22

$(LOCKED): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "$(PYTHON) is older than 3.11; choose another: make PYTHON=python3.11" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	touch $@

# A strict editable install lists the files that exist when it is made, so it is renewed to include new ones.
install: $(LOCKED)  ## create the virtual environment, with the package installed from this checkout
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation \
	    --config-settings editable_mode=strict --editable .

demo: install  ## watch a team of agents finish a piece of work (KEEP=1 keeps the server running)
	$(BIN)/sidecar demo $(if $(KEEP),--keep)

# The dashboard is tested in a real browser, which no Python package includes. Without one, those tests are skipped.
browser:  ## install Chromium and its driver, for the dashboard's tests
	@if command -v chromedriver >/dev/null && { command -v chromium || command -v chromium-browser || command -v google-chrome; } >/dev/null; then \
	    exit 0; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    apt-get update --quiet=2 && apt-get install --quiet=2 --yes --no-install-recommends chromium chromium-driver \
	        || echo "chromium and chromium-driver could not be installed; the dashboard's tests are skipped" >&2; \
	else \
	    echo "no Chromium with chromedriver here; the dashboard's tests are skipped. Debian: sudo apt-get install chromium chromium-driver" >&2; \
	fi

# Agents in Rust are built without a network, from crates that Debian packages.
CRATES := librust-anyhow-dev librust-env-logger-dev librust-log-dev librust-reqwest-dev librust-serde-dev librust-serde-json-dev librust-tokio-dev
crates:  ## install Rust crates from Debian, for the tests of agents in Rust
	@if ! command -v cargo >/dev/null; then \
	    echo "no cargo here; the tests of agents in Rust are skipped" >&2; \
	elif ls -d /usr/share/cargo/registry/reqwest-* /usr/share/cargo/registry/env_logger-* /usr/share/cargo/registry/tokio-[0-9]* >/dev/null 2>&1; then \
	    exit 0; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	    { apt-get update --quiet=2 && DEBIAN_FRONTEND=noninteractive apt-get install --quiet=2 --yes --no-install-recommends $(CRATES) >/dev/null; } \
	        || echo "the crates could not be installed; the tests of agents in Rust are skipped" >&2; \
	else \
	    echo "no Rust crates here; the tests of agents in Rust are skipped. Debian: sudo apt-get install $(CRATES)" >&2; \
	fi

# Two files at a time: most tests wait for processes. JOBS=0 runs one after the other.
JOBS ?= 2
test: install browser crates  ## run the whole test suite
	$(BIN)/python -m pytest -m "not soak" --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

check: install  ## run ruff, mypy --strict and the import contract
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p sidecar
	$(BIN)/lint-imports

bench: install  ## compare speed with peers in the same run
	$(BIN)/python -m tests.benchmarks $(ARGS)

bench-context: install  ## measure how well contexts are chosen: REPOS=<dir of clones> QUERIES=<file of commits>
	$(BIN)/python -m tests.benchmarks.bench_context $(REPOS) $(QUERIES) $(ARGS)

soak: install  ## run the long durability and supervision tests (under 30 minutes)
	$(BIN)/python -m pytest -m soak --timeout 1700 $(ARGS)

lock: $(LOCKED)  ## write requirements.lock again, from pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --extra dev \
	    --no-emit-index-url --no-annotate --custom-compile-command "make lock" --output-file requirements.lock pyproject.toml

clean:  ## remove everything that make has created
	rm -rf $(VENV) build dist *.egg-info
