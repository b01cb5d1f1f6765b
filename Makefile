# make demo: from a fresh clone to a trained run in the browser.    make test: all checks.
PYTHONS ?= python3.11 python3.12 python3.13 python3
# One command installs both, so that pip picks a matching pair. For another build: make demo TORCH="torch torchvision --index-url URL"
TORCH ?= torch==2.14.1 torchvision==0.29.1
EXTRAS ?= dev
PORT ?= 8501
SERVE ?= 1

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed-$(EXTRAS)
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1

.DEFAULT_GOAL := help
.PHONY: help install demo test faults format notebooks screenshot clean

help:
	@echo 'make demo             install, fetch the demo data, train a first run, open it at http://localhost:$(PORT)'
	@echo 'make demo SERVE=0     the same without the dashboard'
	@echo 'make test             ruff, mypy and pytest'
	@echo 'make faults           break off every change of a run or gallery at every file operation'
	@echo 'make fuzz             100,000 odd files, choices, links and pictures (make test tries some of them)'
	@echo 'make format           format the code with ruff and sync the notebooks'
	@echo 'make screenshot       retake the screenshot in README.md from the demo run'
	@echo 'make clean            remove $(VENV) and all caches; data and runs are kept'

install: $(INSTALLED)

$(INSTALLED): pyproject.toml
	@python=; for candidate in $(PYTHONS); do \
	  if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo 'Python 3.11 or newer is needed, but none of $(PYTHONS) is. Install it, or give its path: make demo PYTHONS=/path/to/python' >&2; exit 1; \
	fi; \
	$(BIN)/python -c 'import pip' 2>/dev/null || { echo "Making $(VENV) with $$python"; $$python -m venv --clear $(VENV); }
	$(BIN)/python -m pip install $(TORCH)
	$(BIN)/python -m pip install -e '.[$(EXTRAS)]'
	@touch $@

demo: install
	$(BIN)/pddm-lab demo $(if $(filter-out 0,$(SERVE)),--serve --port $(PORT))

test: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python -m pytest -n 2 --dist loadfile

faults: install
	$(BIN)/python -m pytest tests/faults --all-faults

fuzz: install
	PDDM_LAB_FUZZ_INPUTS=100000 $(BIN)/python -m pytest -n auto --dist worksteal tests/test_fuzz.py tests/dashboard/test_fuzz_links.py

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(MAKE) notebooks

notebooks: install
	$(BIN)/python tests/notebooks/test_train.py
	$(BIN)/jupytext --quiet --update --to ipynb notebooks/*.py

screenshot: install
	$(BIN)/pddm-lab demo
	$(BIN)/pddm-lab screenshots demo --only search --out .github

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache pddm_lab.egg-info build
	find . -name __pycache__ -type d -not -path './data/*' -not -path './runs/*' -prune -exec rm -rf {} +
