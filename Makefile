# One command each. In an environment of your own: python3 -m venv .venv && . .venv/bin/activate
PYTHON ?= python

.PHONY: setup build test lint types format docs bench

setup:  ## the package, editable, with what tests and checks need, and the hooks
	$(PYTHON) -m pip install -e ".[test,dev,docs]"
	pre-commit install

build:  ## after a change in C or Cython
	$(PYTHON) setup.py build_ext --inplace

test:  ## all tests; ARGS="tests/runtime -k stream" for some
	pytest -n auto $(ARGS)

lint:  ## what ruff finds, and whether the tree is formatted
	ruff check --quiet .
	ruff format --check --quiet .
	git ls-files '*.c' '*.h' | xargs clang-format --dry-run --Werror

types:  ## mypy over the package, mypy and pyright over a caller's code
	$(PYTHON) tests/typing/check.py

format:  ## imports, Python and C, in place
	$(PYTHON) .ci/format.py

docs:  ## the site, a warning is an error
	mkdocs build --strict

bench:  ## twelve minutes; ARGS=--quick for one
	$(PYTHON) benchmarks/run.py $(ARGS)
