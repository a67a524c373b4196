# Everything a developer or a visitor runs. `make demo` and `make test` set up what is missing.
.POSIX:
.PHONY: demo test check bench sim soak mutants setup lock clean

PY = .venv/bin/python

demo: setup
	.venv/bin/dcsup demo

# The simulated seeds are a run of their own behind the tests, on all cores: each of them tells whether every promise held in another world.
test: setup check
	$(PY) -m pytest tests -n auto --dist loadfile --no-loadscope-reorder
	$(PY) -m tests.simulation --seeds $(SEEDS)

check: setup
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/mypy --platform win32 -p workers -p statemachines
	.venv/bin/lint-imports

bench: setup
	$(PY) -m deploy.sandbox.bench

# `make sim SEEDS=n` plays n worlds; `make sim SEED=n` tells the story of one. From 10,000 on it is also asked that everything was met a hundred
# times; `make test` plays the first five hundred.
SEEDS = 500
sim: setup
	@if [ -n "$(SEED)" ]; then set -- --seed "$(SEED)" --trace; else set -- --seeds $(SEEDS); fi; $(PY) -m tests.simulation "$$@"

MINUTES = 20
soak: setup
	$(PY) -m deploy.sandbox.soak --minutes $(MINUTES)

# Faults planted into the product one by one: each must be caught by the simulation or by tests.
mutants: setup
	$(PY) -m tests.mutants

setup:
	@sh setup.sh

# Needs pip-tools. Names, versions and hashes only: no index address belongs into the file.
lock:
	pip-compile --quiet --extra dev --generate-hashes --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
		--strip-extras --no-header --allow-unsafe --all-build-deps --output-file requirements.lock pyproject.toml

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
