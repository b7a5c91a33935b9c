# make serve    set up what is needed and serve on tcp://127.0.0.1:5640 (ARGS="--size 8g ...")
# make test     set up what is needed and run every check and every test (PYTEST_ARGS="-k ...")
# make bench-memory   what memory costs and how it is shared; tables and plots in bench/results
# make bench-kernel   a real kernel's work on a mount, beside diod (as root); ends in bench/results
# make dist     build the sdist and the wheel

PYTHON ?= python3
BIN := .venv/bin

.PHONY: serve test lint bench-memory bench-kernel dist clean

serve: .venv/serve
	exec $(BIN)/tmpfs9p serve $(ARGS)

test: .venv/test lint
	tests/install-packages
	$(BIN)/python -m pytest --cov $(PYTEST_ARGS)

lint: .venv/test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

bench-memory: .venv/bench
	$(BIN)/python -m bench.replacement
	$(BIN)/python -m bench.memory

bench-kernel: .venv/bench
	tests/install-packages diod fio
	$(BIN)/python -m bench.kernel $(ARGS)

dist: .venv/test
	$(BIN)/python -m build

clean:
	rm -rf .venv build dist *.egg-info .coverage* .*_cache .hypothesis

.venv/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "tmpfs9p needs Python 3.11 or newer; name one with make PYTHON=..."; exit 1; }
	@$(PYTHON) -c 'import ensurepip' || { [ "$$(id -u)" = 0 ] && \
	  apt-get update -q && apt-get install -q -y --no-install-recommends python3-venv; } || \
	  { echo "Python's venv module is missing: apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv .venv
	touch $@

.venv/serve: .venv/python pyproject.toml
	$(BIN)/pip install --quiet --editable .
	touch $@

.venv/test: .venv/python pyproject.toml
	$(BIN)/pip install --quiet --editable '.[test]'
	touch $@

.venv/bench: .venv/python pyproject.toml
	$(BIN)/pip install --quiet --editable '.[bench]'
	touch $@
