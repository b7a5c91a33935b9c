# make serve    set up what is needed and serve on tcp://127.0.0.1:5640 (ARGS="--size 8g ...")
# make test     set up what is needed and run every check and every test (PYTEST_ARGS="-k ...")
# make bench    how fast it is, of what this machine can do; tables and plots in bench/results
# make bench-memory   what memory costs and how it is shared; tables and plots in bench/results
# make bench-kernel   a real kernel's work on a mount, beside diod (as root); ends in bench/results
# make bench-mount    FUSE mounts, over ssh and else, beside sshfs (as root); ends in bench/results
# make bench-metrics   what --metrics costs; ends in bench/results
# make fuzz     seek inputs that break the server until ^C, or for so long (FUZZ_SECONDS=60)
# make chaos    clients that work and attack, faults, a real mount (ARGS="--seed N --seconds M")
# make dist     build the sdist, the wheel, and tmpfs9p.pyz, one file that runs as it is

PYTHON ?= python3
BIN := .venv/bin
# Two at a time, as each kernel test waits for its guest or for its server.
PARALLEL := --numprocesses 2 --dist worksteal
# With which tests/deploy runs what is in deploy/.
DEPLOY_PACKAGES := mmdebstrap podman runc systemd \
  $(shell command -v kubectl >/dev/null || echo kubernetes-client)
SOURCES := $(wildcard client/*.py client/*/*.py server/*.py server/*/*.py tmpfs_core/*.py)

.PHONY: serve test lint fuzz bench bench-memory bench-kernel bench-mount bench-metrics chaos dist clean

serve: .venv/serve
	@if $(MAKE) --silent build/compiled; then export PYTHONPATH=build/compiled; else \
	  echo "could not compile (see above): serving as plain Python"; fi; \
	exec $(BIN)/tmpfs9p serve $(ARGS)

test: .venv/test lint build/compiled
	tests/install-packages 9mount prometheus tmux $(DEPLOY_PACKAGES)
	$(BIN)/python -m pytest $(PARALLEL) --cov $(PYTEST_ARGS)
	[ ! -d build/compiled/server ] || PYTHONPATH=build/compiled $(BIN)/pytest $(PARALLEL) \
	  --import-mode=append --compiled tests/test_build.py tests/server tests/tmpfs_core tests/client \
	  tests/fault tests/fuzz tests/kernel/test_fuse.py

lint: .venv/test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

fuzz: .venv/test
	@if $(BIN)/pip install --quiet --only-binary atheris --editable '.[fuzz]'; then \
	  $(BIN)/python -m tests.fuzz $(ARGS); \
	else echo "there is no atheris for this Python (see above): nothing was fuzzed"; fi

bench: .venv/bench build/compiled
	PYTHONPATH=build/compiled $(BIN)/python -m bench $(ARGS)

bench-memory: .venv/bench build/compiled
	$(BIN)/python -m bench.replacement
	PYTHONPATH=build/compiled $(BIN)/python -m bench.memory

bench-kernel: .venv/bench build/compiled
	tests/install-packages diod fio
	PYTHONPATH=build/compiled $(BIN)/python -m bench.kernel

bench-mount: .venv/bench build/compiled
	tests/install-packages sshfs
	PYTHONPATH=build/compiled $(BIN)/python -m bench.mount

# -P: within its process too, it is the compiled server that is measured.
bench-metrics: .venv/bench build/compiled
	PYTHONPATH=build/compiled:. $(BIN)/python -P -m bench.metrics

chaos: .venv/test
	$(BIN)/python -m tests.chaos $(ARGS)

dist: dist/tmpfs9p.pyz
	$(BIN)/python -m build

# For hosts with this Python and this processor.
dist/tmpfs9p.pyz: build/compiled .venv/test $(wildcard client/*.py client/*/*.py)
	rm -rf build/single && mkdir -p dist
	$(BIN)/pip install --quiet --target build/single '.[encrypt,metrics,volumes]'
	rm -rf build/single/bin
	cd build/compiled && find . -name '*.so' -exec cp --parents --target-directory=../single {} +
	$(BIN)/shiv --site-packages build/single --entry-point server.program:main --compressed \
	  --reproducible --output-file $@ --python "/usr/bin/env $$($(BIN)/python -c \
	  'import sys; print("python%d.%d" % sys.version_info[:2])')"

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
	$(BIN)/pip install --quiet --editable '.[encrypt,metrics]'
	touch $@

# What pip calls extras of this project: test, compile, bench.
.venv/test .venv/compile .venv/bench: .venv/%: .venv/python pyproject.toml
	$(BIN)/pip install --quiet --editable '.[$*]'
	touch $@

# The compiled build; an empty directory where no C compiler or no Python.h is.
build/compiled: setup.py pyproject.toml $(SOURCES) | .venv/python
	@rm -rf $@ $@.new && mkdir -p build; \
	if command -v $(CC) >/dev/null && test -e "$$($(BIN)/python -c \
	  'from sysconfig import get_path; print(get_path("include"))')/Python.h"; then \
	  echo "compiling, which takes two minutes" && { $(MAKE) --silent .venv/compile && \
	  CC=$(CC) TMPFS9P_COMPILE=1 $(BIN)/python setup.py --quiet build --build-lib $@.new; \
	  } >build/log 2>&1 || { tail build/log; exit 1; }; \
	else echo "no C compiler or no Python.h: plain Python only" && mkdir -p $@.new; fi
	@touch $@.new && mv $@.new $@
