# Each target sets up all it needs: Python 3.11 to 3.13 and make are enough.
PYTHON ?= python3
PIP    := .venv/bin/python -m pip --disable-pip-version-check install --quiet

.PHONY: train test test-long reproduce check format docs clean

train: .venv/installed
	.venv/bin/python train.py

test: check
	.venv/bin/python -m pytest

test-long: .venv/installed
	.venv/bin/python -m pytest -m long

# Runs the published experiments whose data and weights are available, and names what the others lack.
reproduce: .venv/installed
	.venv/bin/python -m benchmarks.reproduce

check: .venv/installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format: .venv/installed
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

# The documentation as a site in site/. It writes the generated parts of the pages first; commit what changes.
docs: .venv/installed
	.venv/bin/python docs/generate.py
	.venv/bin/zensical build --strict

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .cache site
