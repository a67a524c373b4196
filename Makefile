# Everything a developer or a visitor runs. `make demo` and `make test` set up what is missing.
.POSIX:
.PHONY: demo test check bench soak setup lock clean

PY = .venv/bin/python

demo: setup
	.venv/bin/dcsup demo

test: setup check
	$(PY) -m pytest tests -n auto --dist loadfile --no-loadscope-reorder

check: setup
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/mypy --platform win32 -p workers -p statemachines
	.venv/bin/lint-imports

bench: setup
	$(PY) -m deploy.sandbox.bench

ROUNDS = 20
soak: setup
	$(PY) -m deploy.sandbox.soak --rounds $(ROUNDS)

setup:
	@sh setup.sh

# Needs pip-tools. Names, versions and hashes only: no index address belongs into the file.
lock:
	pip-compile --quiet --extra dev --generate-hashes --no-emit-index-url --no-emit-trusted-host --no-emit-find-links \
		--strip-extras --no-header --allow-unsafe --all-build-deps --output-file requirements.lock pyproject.toml

clean:
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis .import_linter_cache
