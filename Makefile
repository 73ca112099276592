# Two commands: `make demo` and `make test`. Each makes .venv and installs what it needs; python3 >= 3.11 and make suffice.

PYTHON ?= python3
VENV := .venv
comma := ,
BIN := $(VENV)/bin
DEMO := examples/clean_streaming_numbers.yaml

.PHONY: demo fleet test test-lowest installs check docs bench cassettes clean

# On a terminal the text streams at its recorded pace, 0.7 s; elsewhere it is shown at once.
demo: $(VENV)/.demo
	@timing=instant; if [ -t 1 ]; then timing=original; fi; set -x; $(BIN)/retold run $(DEMO) --timing $$timing

# Three NATS servers, two recorders and a mirror on this machine; it ends by itself, or by Ctrl-C.
fleet: $(VENV)/.test
	@$(BIN)/python examples/fleet/demo.py

test: $(VENV)/.test check
	$(BIN)/python -m pytest -n auto --maxprocesses=4 --dist=worksteal

# The core of the suite on the lowest versions of every dependency, with two older SDKs; and the wheel beside what others pin.
test-lowest: $(VENV)/.test
	$(BIN)/python tests/lowest.py

installs: $(VENV)/.test
	$(BIN)/python -m tests.installs

check: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# The documentation as a site: open site/index.html. A broken link or an unknown name is an error.
docs: $(VENV)/.docs
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# In an environment of its own, because the plugins of pytest that cassetter and pytest-recording have exclude each other.
bench:
	@$(MAKE) --no-print-directory VENV=.bench .bench/.peers
	.bench/bin/python -m benchmarks

cassettes: $(VENV)/.test
	$(BIN)/python -m tests.record_examples

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "retold needs Python 3.11 or newer; name one with: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@if command -v uv >/dev/null; then uv venv --quiet --python "$$($(PYTHON) -c 'import sys; print(sys.executable)')" $(VENV); \
	  else $(PYTHON) -m venv $(VENV); fi

# uv leaves byte code to the first import, which a read-only or write-averse environment never writes: compile at once.
# On a terminal the installer shows its progress; elsewhere only what is installed and where.
install = echo "installing retold with what it needs into $(VENV), once: $(1)"; \
	  quiet=--quiet; if [ -t 1 ]; then quiet=; fi; \
	  if command -v uv >/dev/null; \
	  then uv pip install $$quiet --compile-bytecode --python $(BIN)/python -e $(1); \
	  else $(BIN)/python -m pip install $$quiet --disable-pip-version-check -e $(1); fi

$(VENV)/.demo: pyproject.toml | $(BIN)/python
	@$(call install,".[prices$(comma)view]")
	@touch $@

$(VENV)/.test: pyproject.toml | $(BIN)/python
	@$(call install,".[test]")
	@touch $@ $(VENV)/.demo $(VENV)/.docs

$(VENV)/.docs: pyproject.toml | $(BIN)/python
	@$(call install,".[docs]")
	@touch $@

# The peers of the benchmarks are optional: a row says "not installed". No stamp then, so the next `make bench` tries again.
# npm installs aimock beside them; only root can install ripgrep and git, with apt.
$(VENV)/.peers: pyproject.toml $(VENV)/.test
	@missing=; $(call install,".[bench]") || missing="vcrpy, cassetter or DuckDB"; \
	  [ -x $(BIN)/aimock ] || { command -v npm >/dev/null && \
	    npm install --global --prefix $(VENV) --silent --no-audit --no-fund @copilotkit/aimock; } || missing="$$missing aimock"; \
	  for tool in rg:ripgrep git:git; do \
	    command -v $${tool%:*} >/dev/null || { [ "$$(id -u)" = 0 ] && apt-get update -qq && \
	      DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends $${tool#*:} >/dev/null; } || \
	    missing="$$missing $${tool#*:}"; \
	  done; \
	  if [ -z "$$missing" ]; then touch $@; else echo "these peers cannot be installed, their rows will say so: $$missing"; fi

clean:
	rm -rf $(VENV) .bench .retold build dist site *.egg-info .mypy_cache .ruff_cache .hypothesis
