# make quickstart | test | check | setup      Everything happens in .venv; a second call starts at once.
PYTHON ?= python3
BIN := .venv/bin
unexport PYTHONDONTWRITEBYTECODE  # some containers set it: then every import would compile Python again

.PHONY: quickstart setup test check format lint types clean

quickstart: setup  ## three optimizers on embedded images, four seeds each, and the report
	$(BIN)/python src/train.py -m experiment=quickstart optimizer=adam,sgd,rmsprop seed=0,1,2,3

test: setup  ## on all cores; `python -m pytest` runs one test after the other
	$(BIN)/python -m pytest --numprocesses=auto --dist=worksteal

check: format lint types test  ## the whole gate: what CI runs

format: setup
	$(BIN)/ruff format --check .

lint: setup
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy

setup: .venv/ready

.venv/ready: requirements.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11, 4) and "OptBench needs Python 3.11.4 or newer; this is " + sys.version.split()[0] + ". Try: make $(MAKECMDGOALS) PYTHON=python3.12")'
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==0.13.9
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.txt
	@touch $@

clean:
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache
