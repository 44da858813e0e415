PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed

.PHONY: demo test test-heavy lint types lock bench study ablation tune ensemble clean

demo: $(INSTALLED)  ## install, attack lab images, evaluate, write the report
	$(BIN)/attnshift demo --out runs/demo

test: $(INSTALLED) lint  ## all tests that take seconds
	$(BIN)/python -m pytest -m "not heavy"

test-heavy: $(INSTALLED)  ## the tests that take minutes
	$(BIN)/python -m pytest -m heavy

lint: $(INSTALLED)
	$(BIN)/ruff check src tests examples benchmarks
	$(BIN)/ruff format --check src tests examples benchmarks
	$(BIN)/lint-imports --no-cache

types: $(INSTALLED)
	$(BIN)/pyright

study: $(INSTALLED)  ## the table of docs/results.md
	bash examples/study_lab.sh $(BIN)/attnshift runs/study

ablation: $(INSTALLED)  ## one run for each term added to the baseline or taken out of preset full
	bash examples/ablation_lab.sh $(BIN)/attnshift runs/ablation

tune: $(INSTALLED)  ## the tuned recipes of docs/results.md (hours on two cores)
	bash examples/tune_lab.sh $(BIN)/attnshift runs/tune

ensemble: $(INSTALLED)  ## one run for each fusion rule, with and without views
	bash examples/ensemble_lab.sh $(BIN)/attnshift runs/ensemble

bench: MODELS ?= lab mini
bench: $(INSTALLED)  ## the tables of docs/performance.md; MODELS="lab mini sd2" takes 18 GB
	$(BIN)/python benchmarks/speed.py --models $(MODELS)
	$(BIN)/python benchmarks/memory.py --models $(MODELS)
	$(BIN)/python benchmarks/large_images.py
	$(BIN)/python benchmarks/rates.py --models $(MODELS)
	$(BIN)/python benchmarks/surrogates.py --models $(MODELS)
	$(BIN)/python benchmarks/switches.py
	$(BIN)/python benchmarks/workers.py
	$(BIN)/python benchmarks/table.py --write

lock:  ## renew requirements.lock (needs uv)
	uv pip compile pyproject.toml --group dev --universal --no-emit-index-url --no-annotate --no-header -q -o requirements.lock

clean:
	rm -rf .venv runs

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
