# One way in: `make` alone says what there is.
PYTHON ?= python3
PROFILE ?= laptop
UV_VERSION := 0.13.9
BIN := .venv/bin
READY := .venv/.installed
PARALLEL := -n auto --dist loadfile  # a worker per core; a file's tests share what they made

.DEFAULT_GOAL := help
.PHONY: help reproduce test slow lint lab bench notebooks book readme lock clean

help:  ## Say what each target does
	@echo "usage: make <target> [PROFILE=laptop] [ARGS='--only 04,05 --set key=value']"
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# The stamp is written last, so an installation that failed half-way is taken up again. uv does not
# read pip's configuration: the index and certificate that pip would use are handed to it here.
$(READY): requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) is not installed: Python 3.11 or later is needed."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, \
	and $(PYTHON) is " + sys.version.split()[0] + ": try make PYTHON=python3.12.")'
	@rm -f $@
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@index=$$($(BIN)/python -m pip config get global.index-url 2>/dev/null); \
	index=$${UV_DEFAULT_INDEX:-$${PIP_INDEX_URL:-$$index}}; \
	certificate=$${SSL_CERT_FILE:-$$PIP_CERT}; \
	if [ -n "$$index" ]; then export UV_DEFAULT_INDEX="$$index"; fi; \
	if [ -n "$$certificate" ]; then export SSL_CERT_FILE="$$certificate"; fi; \
	echo "installing the packages of requirements.lock (about 5 GB)"; \
	$(BIN)/uv pip install --python $(BIN)/python --require-hashes -r requirements.lock && \
	$(BIN)/uv pip install --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

reproduce: $(READY)  ## Run the notebooks of PROFILE in order, going on where the last run stopped
	$(BIN)/dmc reproduce $(PROFILE) $(ARGS)

test: lint  ## Check with ruff, quick tests, and every notebook at smoke size
	$(BIN)/python -m pytest $(PARALLEL) -rfER --reruns 1 --only-rerun Timeout -m "not slow"
	rm -rf cache/smoke && mkdir -p cache/smoke
	$(BIN)/python -m tests.smoke_copies cache/smoke
	OMP_NUM_THREADS=1 MKL_NUM_THREADS=1 $(BIN)/python -m pytest $(PARALLEL) --nbval-lax \
		--nbval-current-env --nbval-cell-timeout=600 --timeout=0 \
		--nbval-sanitize-with tests/nbval_sanitize.cfg cache/smoke

slow: $(READY)  ## Run the tests that take long
	$(BIN)/python -m pytest $(PARALLEL) --timeout=0 -m slow

lint: $(READY)  ## Check style with ruff, notebooks included
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

lab: $(READY)  ## Open the notebooks in JupyterLab
	$(BIN)/jupyter lab notebooks

bench: $(READY)  ## Time every part beside what it competes with
	$(BIN)/dmc bench all $(ARGS)

notebooks: $(READY)  ## Execute the notebooks in place, as they are committed: the laptop run
	$(BIN)/jupyter nbconvert --to notebook --execute --inplace \
		--ExecutePreprocessor.record_timing=False notebooks/*.ipynb

book: $(READY)  ## Build the pages from the notebooks as they are committed: book/_build/html/index.html
	$(BIN)/python -m sphinx -c book -d book/_build/doctrees -W --keep-going -q . book/_build/html

readme: $(READY)  ## Write the tables of README anew from results/
	$(BIN)/python -m dmclib.reproduce.readme

lock: $(READY)  ## Resolve requirements.lock again from pyproject.toml (then edit environment.yml)
	$(BIN)/uv pip compile pyproject.toml --extra dev --extra book --universal \
		--python-version 3.11 --generate-hashes --no-header --no-emit-index-url \
		--no-emit-find-links --no-annotate -o requirements.lock

clean:  ## Remove tool caches, run folders, built pages and cache/ (results, figures and .venv stay)
	rm -rf .pytest_cache .ruff_cache book/_build cache results/*/runs
	find dmclib tests notebooks -name __pycache__ -o -name .ipynb_checkpoints | xargs rm -rf
