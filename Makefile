# Each target installs what it needs. Python 3.11 to 3.13 and make are required.
PYTHON ?= python3
PIP    := .venv/bin/python -m pip --disable-pip-version-check install --quiet

.PHONY: train test test-long reproduce check format docs clean

train: .venv/installed
	.venv/bin/python train.py

test: check
	.venv/bin/python -m pytest

test-long: .venv/installed
	.venv/bin/python -m pytest -m long

# Run the published experiments whose data and weights are available; name the missing files of the others.
reproduce: .venv/installed
	.venv/bin/python -m benchmarks.reproduce

check: .venv/installed
	.venv/bin/ruff check .
	.venv/bin/ruff format --check .
	.venv/bin/mypy

format: .venv/installed
	.venv/bin/ruff check --fix .
	.venv/bin/ruff format .

# Write the generated parts of the pages (commit the changes), and build the documentation in site/.
docs: .venv/installed
	.venv/bin/python docs/generate.py
	.venv/bin/zensical build --strict

.venv/installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --constraint constraints.txt --editable ".[dev]"
	touch $@

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .cache site
