# lookonce: `make demo` and `make test` set up everything they need. Needs Python 3.11-3.13 with pip (or uv), and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/$(if $(filter Windows_NT,$(OS)),Scripts,bin)
UV := $(shell command -v uv 2>/dev/null)
INSTALL := $(if $(UV),$(UV) pip install --compile-bytecode --python $(BIN)/python,$(BIN)/python -m pip install --disable-pip-version-check)
READY := $(VENV)/.ready

.PHONY: demo test test-lowest lint style docs lock clean

demo: $(READY)
	$(BIN)/lookonce demo

# mypy takes a minute of one core, so it runs beside the tests and reports after them. Measuring coverage makes the tests
# half as slow again, so it is left to CI (or: make test CI=1).
test: style
	@echo "$(BIN)/mypy, pytest"; $(BIN)/mypy >$(VENV)/mypy.txt 2>&1 & types=$$!; \
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal $(if $(CI),--cov --cov-report=term); tests=$$?; \
	wait $$types; types=$$?; cat $(VENV)/mypy.txt; exit $$((tests || types))

# The lowest versions that pyproject.toml allows, on a part of the suite; torch is that of requirements-cpu.lock. Linux.
test-lowest: .venv-lowest/.ready
	.venv-lowest/bin/python -m pytest -n auto --maxprocesses 4 --dist worksteal $(LOWEST)

LOWEST := tests/model tests/data tests/evaluation tests/inference tests/training/test_run.py \
	tests/commands/test_train.py tests/commands/test_detect.py tests/commands/test_evaluate.py tests/commands/test_export.py

.venv-lowest/.ready: requirements-lowest.lock requirements-cpu.lock pyproject.toml
	$(PYTHON) -m venv --clear .venv-lowest
	$(subst $(BIN),.venv-lowest/bin,$(INSTALL)) --quiet --require-hashes --no-deps -r requirements-cpu.lock
	$(subst $(BIN),.venv-lowest/bin,$(INSTALL)) --quiet --require-hashes --no-deps -r requirements-lowest.lock
	$(subst $(BIN),.venv-lowest/bin,$(INSTALL)) --quiet --no-deps --no-build-isolation --editable .
	@touch $@

lint: style
	$(BIN)/mypy

style: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

# The documentation as a site in site/: the notebooks run (a minute, once), links are checked.
docs: $(VENV)/.docs-ready
	$(BIN)/python tools/build_docs.py

$(VENV)/.docs-ready: $(READY) requirements-docs.lock
	$(INSTALL) --quiet --require-hashes --no-deps -r requirements-docs.lock
	@touch $@

# The stamp is written last, so that an interrupted set-up starts again.
$(READY): requirements.lock requirements-cuda.lock requirements-cpu.lock pyproject.toml
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else "lookonce needs Python 3.11 to 3.13, and $(PYTHON) is %d.%d; try: make PYTHON=python3.12" % v)'
	$(PYTHON) -m venv --clear $(VENV)
	@# Install torch's small CPU build if the installer knows where to find it; otherwise this does nothing.
	@$(INSTALL) --quiet --require-hashes --no-deps -r requirements-cpu.lock 2>/dev/null || true
	$(INSTALL) --quiet --require-hashes --no-deps -r requirements.lock
	@if $(BIN)/python tools/needs_cuda.py; then echo "torch is a CUDA build: installing its libraries"; \
		$(INSTALL) --quiet --require-hashes --no-deps -r requirements-cuda.lock; fi
	$(INSTALL) --quiet --no-deps --no-build-isolation --editable .
	@touch $(READY)

# Write the lock files again (needs uv): exact, hashed pins without addresses. Present pins are kept; delete a lock file
# to move its pins to the newest versions.
COMPILE := uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --no-annotate \
	--no-emit-index-url --quiet --extra demo --extra onnx --extra int8 --extra serve --extra lake --extra ray --extra video --extra dev
lock:
	cat requirements.lock requirements-cuda.lock >.full.lock
	$(COMPILE) --constraint tools/constraints.txt -o .full.lock
	cat .full.lock requirements-docs.lock >.docs.lock
	$(COMPILE) --extra docs --constraint tools/constraints.txt -o .docs.lock
	$(subst --universal,--resolution lowest-direct,$(COMPILE)) --constraint tools/constraints.txt -o .lowest.lock
	$(PYTHON) tools/split_lock.py .full.lock .docs.lock .lowest.lock && rm .full.lock .docs.lock .lowest.lock

clean:
	rm -rf $(VENV) .venv-lowest .docs site .mypy_cache .pytest_cache .ruff_cache .coverage
