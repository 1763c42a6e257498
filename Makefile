# Each target creates .venv if it is missing. PYTHON=python3.12 chooses another interpreter (3.11 to 3.13).
PYTHON ?= python3
# Some containers set this. Every process would then compile the 3,700 modules of torch, MLflow … again: ten seconds each.
unexport PYTHONDONTWRITEBYTECODE
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: demo unseen test check bench ui docs clean help

help:            ## list the targets
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## /\t/' | expand -t 12

demo: $(INSTALLED)  ## three predictors on a generated corpus and a report; about five minutes
	@echo "Three predictors on a generated (SYNTHETIC) corpus: cnn, cnn_text and a small local language model."
	$(BIN)/python run.py -m model=cnn,cnn_text,llm
	@echo
	@echo "All runs:      make ui                             metrics, figures and predictions in MLflow"
	@echo "Real speech:   $(BIN)/ser-bench corpora list      sources; then: python run.py corpus=cremad corpus.root=..."
	@echo "Installation:  $(BIN)/ser-bench doctor            what is installed, what is missing"

AUDIO ?= AudioWAV
ON_CREMAD = $(BIN)/python run.py corpus=cremad corpus.root=$(AUDIO)

unseen: $(INSTALLED) ## every predictor on unseen speakers of CREMA-D, one table; AUDIO=folder; takes hours on two cores
	$(ON_CREMAD) experiment=three_predictors -m model=majority,listeners,text_only,llm,cnn,cnn_text
	$(ON_CREMAD) experiment=crnn
	$(ON_CREMAD) experiment=none split=speaker model=egemaps head=svm
	$(ON_CREMAD) experiment=none split=speaker augment=none model=whisper_probe
	$(ON_CREMAD) experiment=none split=speaker model=fusion 'model.members=[whisper_probe,crnn]' model.combine=mean
	$(BIN)/ser-bench compare corpus=cremad --tag protocol=speaker --baseline cnn \
	  --models majority,listeners,text_only,llm,cnn,cnn_text,egemaps,crnn,whisper_probe,fusion

test: $(INSTALLED)  ## all tests
	$(BIN)/python -m pytest

check: $(INSTALLED) ## ruff, mypy --strict, and the test of the direction of imports
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/python -m pytest tests/unit/test_architecture.py

bench: $(INSTALLED) ## speed relative to reference implementations, measured side by side
	$(BIN)/python benchmarks/comparison.py
	$(BIN)/python benchmarks/network.py
	$(BIN)/python benchmarks/features.py
	$(BIN)/python benchmarks/asr.py

export RUNS ?= mlruns
PORT ?= 5000

ui: $(INSTALLED)    ## the MLflow UI on http://127.0.0.1:5000; RUNS=folder (that of tracking.dir=), PORT=number
	@test -f "$$RUNS/mlflow.db" || { echo "There is no store in $$RUNS. A run makes one (make demo); RUNS=FOLDER shows another one."; exit 1; }
	$(BIN)/mlflow ui --host 127.0.0.1 --port $(PORT) --backend-store-uri "sqlite:///$$(cd "$$RUNS" && pwd)/mlflow.db"

docs: $(INSTALLED)  ## the documentation site in site/; only its first call needs a network
	@$(BIN)/python -c 'import zensical' 2>/dev/null || $(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  --constraint constraints.txt --editable '.[demo,dev,docs]'
	$(BIN)/python -m docs.site_builder

clean:              ## remove the virtual environment; runs in mlruns/ are kept
	rm -rf $(VENV)

$(INSTALLED): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || \
	  { echo "ser_bench needs Python 3.11 to 3.13; choose one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	@# pip would compile 25,000 modules one after another; Python compiles the few thousand that are used at their first import.
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt --editable '.[demo,dev]'
	@touch $@
