PYTHON ?= python3
BIN := .venv/bin
# Compiled modules are kept, whatever the environment says: checks and tests start many processes.
export PYTHONDONTWRITEBYTECODE :=
INSTALLED := .venv/.installed
CODE := src tests examples benchmarks docs/notebooks
# Two processes: each takes the next test as soon as it has none left.
FAST := $(BIN)/python -m pytest -m "not heavy" -n 2 --dist worksteal

.PHONY: help demo test test-all shapes check static lint layers types documents docs docs-version notebooks format coverage lock bench study study-photographs study-targeted steering ingredients tune ensemble clean

help:  ## list the targets
	@sed -n 's/^\([a-z][a-z-]*\):.*## */\1\t/p' $(MAKEFILE_LIST) | expand -t 14

demo: $(INSTALLED)  ## install, attack lab images, evaluate, write the report
	$(BIN)/attnshift demo --out runs/demo

# Types are checked beside the tests, which leave a core free now and then, and told behind them.
test: lint layers  ## what CI runs: `make check`, and every test that takes seconds
	@said=$$(mktemp); $(BIN)/pyright >"$$said" 2>&1 & types=$$!; \
	$(FAST); tests=$$?; \
	wait $$types; typed=$$?; cat "$$said"; rm -f "$$said"; \
	exit $$((tests > typed ? tests : typed))

test-all: test  ## every test there is (before a release)
	$(BIN)/python -m pytest -m heavy
	@$(MAKE) --no-print-directory shapes docs

shapes: $(INSTALLED)  ## tests of the parts with tensors, with every annotated shape checked
	SHAPES=1 $(FAST) -o fast_test_seconds=60 tests/losses tests/attention tests/ensemble tests/diffusion

check: static documents  ## ruff, format, import layers, types, examples in docstrings, links in the docs

# Side by side, each with its lines together where this make can do that.
static: $(INSTALLED)
	@$(MAKE) --no-print-directory -j2 $(if $(filter output-sync,$(.FEATURES)),--output-sync) lint layers types

lint: $(INSTALLED)
	$(BIN)/ruff check $(CODE)
	$(BIN)/ruff format --check $(CODE)

layers: $(INSTALLED)
	$(BIN)/lint-imports --no-cache

types: $(INSTALLED)
	$(BIN)/pyright

documents: $(INSTALLED)  ## examples in docstrings, links and names of files in the documents, public names without a docstring
	$(BIN)/python -m pytest tests/test_docstrings.py tests/test_documents.py tests/test_site.py

docs: $(INSTALLED)  ## the site of docs/, in site/ (open site/index.html); a warning fails
	$(BIN)/python -m mkdocs build --strict --quiet

docs-version: $(INSTALLED)  ## add the site as version VERSION=0.1 to the branch gh-pages, and show it first
	@test -n "$(VERSION)" || { echo "make docs-version VERSION=0.1: the version that the site is of" >&2; exit 2; }
	PATH="$(abspath $(BIN)):$$PATH" DOCS_VERSIONS=mike $(BIN)/mike deploy --update-aliases $(VERSION) latest
	$(BIN)/mike set-default latest

notebooks: $(INSTALLED)  ## run docs/notebooks again, and keep their outputs
	PATH="$(abspath $(BIN)):$$PATH" $(BIN)/python examples/pages/notebooks.py docs/notebooks/*.ipynb

format: $(INSTALLED)  ## format the code, and mend what ruff can mend
	$(BIN)/ruff check --fix $(CODE)
	$(BIN)/ruff format $(CODE)

coverage: $(INSTALLED)  ## the fast tests with the lines that they reach; fails below the floor in pyproject.toml
	$(FAST) --cov --cov-report=term:skip-covered

study: $(INSTALLED)  ## the tables of docs/results.md; PARTS="main notes published costly …"
	bash examples/study_lab.sh $(BIN)/attnshift $(BIN)/python runs/study $(PARTS)
	$(BIN)/python examples/pages/comparisons.py runs/study docs/results.md

PHOTOGRAPHS := runs/study-photographs
study-photographs: $(INSTALLED)  ## docs/results-photographs.md; MATERIAL=FOLDER, PARTS="core large …" (many hours)
	@test -d "$(MATERIAL)" || { echo "make study-photographs MATERIAL=FOLDER: docs/results-photographs.md says what it holds" >&2; exit 2; }
	bash examples/study_photographs.sh $(BIN)/attnshift $(BIN)/python "$(MATERIAL)" $(PHOTOGRAPHS) $(PARTS)
	$(BIN)/python examples/pages/comparisons.py $(PHOTOGRAPHS) docs/results-photographs.md

study-targeted: $(INSTALLED)  ## targeted attacks, plain, behind JPEG and purification; MATERIAL=FOLDER, PARTS="lab photographs"
	MATERIAL="$(MATERIAL)" bash examples/study_targeted.sh $(BIN)/attnshift $(BIN)/python runs/study-targeted $(PARTS)

steering: $(INSTALLED)  ## the lab's tables of docs/steering.md (two hours)
	bash examples/steering.sh $(BIN)/attnshift $(BIN)/python runs/steering lab

INGREDIENTS := runs/ingredients
ingredients: $(INSTALLED)  ## what each ingredient adds to preset strong on tuning images of the lab (hours); with MATERIAL=FOLDER on photographs
	bash examples/ingredients.sh $(BIN)/attnshift $(BIN)/python $(INGREDIENTS) $(if $(MATERIAL),photographs $(PHOTOGRAPHS) "$(MATERIAL)",lab)

tune: $(INSTALLED)  ## search numbers of two recipes, and judge them (hours on two cores)
	bash examples/tune_lab.sh $(BIN)/attnshift runs/tune

ensemble: $(INSTALLED)  ## one run for each fusion rule, with and without views
	bash examples/ensemble_lab.sh $(BIN)/attnshift runs/ensemble

bench: MODELS ?= lab mini
bench: $(INSTALLED)  ## the tables of docs/performance.md; MODELS="lab mini sd2" takes 18 GB
	$(BIN)/python benchmarks/speed.py --models $(MODELS) --threads 1
	$(BIN)/python benchmarks/speed.py --models $(MODELS) --threads 2 --parts iterations
	$(BIN)/python benchmarks/memory.py --models $(MODELS)
	$(BIN)/python benchmarks/large_images.py
	$(BIN)/python benchmarks/rates.py --models $(MODELS)
	$(BIN)/python benchmarks/surrogates.py --models $(MODELS)
	$(BIN)/python benchmarks/switches.py --count 40 --at 0.9 0.95 --surrogates lab:resnet lab:efficientnet lab:mobilevit
	$(BIN)/python benchmarks/workers.py
	$(BIN)/python benchmarks/allocator.py --models lab
	$(BIN)/python benchmarks/allocator.py --models mini --count 1
	$(BIN)/python benchmarks/table.py --write

lock:  ## renew requirements.lock (needs uv)
	uv pip compile pyproject.toml --group dev --universal --no-emit-index-url --no-annotate --no-header -q -o requirements.lock

clean:  ## remove what was installed, the site, and all runs
	rm -rf .venv runs site

# --no-deps: the lock is complete, and overrides a pin of torchattacks that pip would insist on.
$(INSTALLED): pyproject.toml requirements.lock
	@if command -v uv >/dev/null 2>&1; then \
		uv venv --quiet --clear --python $(PYTHON) .venv && \
		uv pip install --quiet --python $(BIN)/python --no-deps -r requirements.lock && \
		uv pip install --quiet --python $(BIN)/python --no-deps -e . ; \
	else \
		$(PYTHON) -m venv --clear .venv && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -r requirements.lock && \
		$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e . ; \
	fi
	@touch $@
