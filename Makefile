# Each target prints the commands it runs. Needs Python >= 3.11, pip and make; everything else it installs into .venv.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

.PHONY: setup demo test check fuzz bench base docs labs constraints clean

setup: $(VENV)/.installed sandbox  ## make .venv, install hone with the tested versions

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "hone needs Python >= 3.11: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	@touch $@

# Only the sandbox for generated code needs bubblewrap; training works without it.
.PHONY: sandbox
sandbox:
	@if command -v bwrap >/dev/null; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  echo "apt-get install -y -qq bubblewrap"; \
	  { apt-get update -qq && apt-get install -y -qq bubblewrap; } >/dev/null || echo "bubblewrap could not be installed: grading generated code will refuse, everything else works"; \
	else echo "to grade generated code, install bubblewrap once: sudo apt-get install bubblewrap"; fi

demo: setup  ## fine-tune the model that ships with hone, show what changed
	$(BIN)/hone demo

# One process a core, at most four: a test takes one thread, and each process holds up to a gigabyte.
PYTEST := $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist worksteal

test: setup  ## the whole test suite
	$(PYTEST)

check: setup  ## format, lint, types, fast tests
	$(BIN)/ruff format --check src tests benchmarks examples base_model tools docs
	$(BIN)/ruff check src tests benchmarks examples base_model tools docs
	$(BIN)/mypy
	$(PYTEST) -m 'not slow'

SECONDS_EACH := 300

fuzz: setup  ## look for inputs that break the readers, each kind for five minutes (SECONDS_EACH=60 for one)
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[fuzz]'
	for target in rows parquet config answers model; do $(BIN)/python tools/fuzz.py $$target --seconds $(SECONDS_EACH) || exit 1; done

bench: setup  ## measure data preparation against datasets.map (see benchmarks/)
	$(BIN)/python benchmarks/prepare_data.py

base: setup  ## pre-train the base model on public Python source, into out/base/shipped: hours; after a stop it goes on
	test -f out/base/corpus.md || $(BIN)/python base_model/base_corpus.py --out out/base
	test -f out/base/tokenizer/tokenizer.json || $(BIN)/python base_model/base_tokenizer.py --corpus out/base --out out/base/tokenizer
	$(BIN)/hone train base_model/base.yaml
	$(BIN)/hone train base_model/base-last.yaml
	$(BIN)/python benchmarks/base_model.py --model out/base/last --corpus out/base > out/base/bits.md
	$(BIN)/python base_model/base_ship.py --corpus out/base --bits out/base/bits.md --out out/base/shipped

docs: setup  ## write what the documentation takes from the code
	$(BIN)/python -m hone.config.reference > docs/reference/config.md
	$(BIN)/python tools/command_pages.py

labs: setup  ## run the commands of docs/labs and write their outputs into the pages
	$(BIN)/python tools/labs.py

constraints:  ## write the installed versions to constraints.txt
	$(BIN)/python -m pip freeze --exclude-editable | sed 's/+cpu//' | grep -v -e '^hone' -e ' @ ' > constraints.txt

clean:
	rm -rf $(VENV) build dist src/*.egg-info
