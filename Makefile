# Every target sets itself up: all it needs is Python >= 3.11 and make.
PYTHON ?= python3
UV_VERSION := 0.13.8
UV := .tools/uv/bin/uv
VENV := .venv
STAMP := $(VENV)/.synced

.PHONY: setup demo test chaos lint format wheels bench clean

setup: $(STAMP)

$(UV):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Flagpost needs Python 3.11 or newer; set PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv .tools/uv
	.tools/uv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)

$(STAMP): $(UV) uv.lock pyproject.toml schemas/pyproject.toml publisher/pyproject.toml consumer/pyproject.toml
	$(UV) sync --locked --all-packages --all-extras --python $(PYTHON) --no-python-downloads
	@touch $(STAMP)

demo: setup
	$(VENV)/bin/flagpost demo

# Most tests wait more than they work, so two run at a time; ARGS="-n 0 -s tests/unit" runs a part and shows all.
test: setup
	$(VENV)/bin/python -m pytest -n 2 --dist worksteal $(ARGS)

# The long form of tests/chaos: about an hour. CHAOS_SEED=… repeats a run; ARGS="-k kill_9" runs a part.
chaos: setup
	CHAOS=long $(VENV)/bin/python -m pytest -s tests/chaos $(ARGS)
	$(VENV)/bin/python tests/chaos/fuzz_records.py --records 100000

lint: setup
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

format: setup
	$(VENV)/bin/ruff format .
	$(VENV)/bin/ruff check --fix .

wheels: setup
	$(UV) build --quiet --clear --all-packages --wheel --out-dir dist --python $(VENV)/bin/python

bench: setup
	$(VENV)/bin/python benchmarks/deliver.py

clean:
	rm -rf $(VENV) .tools .cache dist
