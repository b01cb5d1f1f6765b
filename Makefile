# make demo: from a fresh clone to a trained run in the browser.    make test: all checks.
PYTHONS ?= python3.11 python3.12 python3.13 python3
# A matching pair, which make lock takes. It is locked apart from the rest, with its CUDA libraries: a file's hash is that of one
# build, and there are others. make demo TORCH_BACKEND=cpu takes one that uv knows (cpu, auto, cu130, rocm7.1, ...), and
# make demo TORCH="torch torchvision --index-url URL" any other. These have no hashes.
TORCH_PAIR := torch==2.14.1 torchvision==0.29.1
TORCH ?= --no-deps --require-hashes -r requirements-torch.txt
TORCH_BACKEND ?=
EXTRAS ?= dev
PORT ?= 8501
SERVE ?= 1

VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/installed-$(EXTRAS)
LOCKS := requirements.txt requirements-torch.txt
# Python compiles a file when it first imports it, unless it may not keep the result: a fifth of the files that pip would compile.
PIP_INSTALL := $(BIN)/python -m pip install $(if $(PYTHONDONTWRITEBYTECODE),,--no-compile)
UV ?= $(firstword $(wildcard $(BIN)/uv) uv)
AUDIT ?= $(BIN)/pip-audit
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1

.DEFAULT_GOAL := help
.PHONY: help install demo test types tests slow faults fuzz churn mutants lock audit format notebooks screenshot clean

help:
	@echo 'make demo             install, fetch the demo data, train a first run, open it at http://localhost:$(PORT)'
	@echo 'make demo SERVE=0     the same without the dashboard'
	@echo 'make demo TORCH_BACKEND=cpu   the same with a PyTorch for the CPU alone: 0.2 GB instead of 5 GB on Linux'
	@echo 'make test             ruff, mypy and pytest'
	@echo 'make slow             the tests that take longest, which make test leaves out'
	@echo 'make faults           break off every change of a run or gallery at every file operation'
	@echo 'make fuzz             100,000 odd files, choices, links, pictures and requests (make test tries some of them)'
	@echo 'make churn            change galleries at random in every store, against an exact search; then 1,000 changes of 100,000 items'
	@echo 'make mutants          change the mathematics of the core 2,500 times, and see that the tests notice'
	@echo 'make lock             lock what pyproject.toml needs, by version and hash (UPGRADE=1: the newest versions)'
	@echo 'make audit            ask for known vulnerabilities of what is locked'
	@echo 'make format           format the code with ruff and sync the notebooks'
	@echo 'make screenshot       retake the screenshot in README.md from the demo run'
	@echo 'make clean            remove $(VENV) and all caches; data and runs are kept'

install: $(INSTALLED)

$(INSTALLED): pyproject.toml $(LOCKS)
	@python=; for candidate in $(PYTHONS); do \
	  if $$candidate -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then python=$$candidate; break; fi; \
	done; \
	if [ -z "$$python" ]; then \
	  echo 'Python 3.11 or newer is needed, but none of $(PYTHONS) is. Install it, or give its path: make demo PYTHONS=/path/to/python' >&2; exit 1; \
	fi; \
	$(BIN)/python -c 'import pip' 2>/dev/null || { echo "Making $(VENV) with $$python"; $$python -m venv --clear $(VENV); }
	$(PIP_INSTALL) --no-deps --require-hashes -r requirements.txt
	$(if $(TORCH_BACKEND),$(BIN)/uv pip install --python $(BIN)/python --torch-backend $(TORCH_BACKEND) $(TORCH_PAIR),$(PIP_INSTALL) $(TORCH))
	$(PIP_INSTALL) --no-build-isolation $(if $(filter dev,$(EXTRAS)),--no-deps) -e '.[$(EXTRAS)]'
	@touch $@

demo: install
	$(BIN)/pddm-lab demo $(if $(filter-out 0,$(SERVE)),--serve --port $(PORT))

# mypy runs beside the tests, which leave part of two cores idle.
test: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	@$(MAKE) --no-print-directory -j 2 types tests

types: install
	$(BIN)/mypy

# One thread a process: two processes with as many threads as cores each wait for one another. Folders come first: a file
# in them has few tests that take long, and by number of tests they would be last, one process waiting for the other.
tests: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

slow: install
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow -n 2 --dist loadfile

faults: install
	$(BIN)/python -m pytest tests/faults --all-faults

fuzz: install
	PDDM_LAB_FUZZ_INPUTS=100000 $(BIN)/python -m pytest -n auto --dist worksteal tests/test_fuzz.py tests/test_service_conformance.py tests/dashboard/test_fuzz_links.py

churn: install
	PDDM_LAB_CHURN_EXAMPLES=300 $(BIN)/python -m pytest -n auto --dist worksteal tests/test_store.py tests/test_gallery_upkeep.py tests/test_history.py tests/test_upkeep.py
	$(BIN)/pddm-lab bench churn

mutants: install
	$(BIN)/python tests/mutants/check.py

# One resolution for every system and Python from 3.11. What is locked keeps its version where that still fits.
lock:
	@new=$$(mktemp -d); trap 'rm -r "$$new"' EXIT; cat $(LOCKS) > "$$new/all"; \
	if ! printf '%s\n' $(TORCH_PAIR) 'setuptools>=77' | $(UV) pip compile pyproject.toml - -o "$$new/all" --extra dev --universal \
	  --python-version 3.11 --generate-hashes --no-emit-index-url --no-header --no-annotate $(if $(UPGRADE),--upgrade) > "$$new/log" 2>&1; then \
	  if grep -qiE 'failed to fetch|error sending request|dns error' "$$new/log"; then \
	    echo 'make lock needs the package index, which can'\''t be reached: the lock is as it was. Try again with a network.' >&2; \
	  else cat "$$new/log" >&2; fi; exit 1; \
	fi; \
	awk -v new="$$new/" 'BEGIN {for (n = split("$(LOCKS)", lock, " "); n; n--) print "# make lock writes this file from pyproject.toml." > (new lock[n])} \
	  /^[a-z]/ {file = lock[/^(torch|torchvision|triton|nvidia-.*|cuda-.*)==/ ? 2 : 1]} {print > (new file)}' "$$new/all" && \
	mv $(foreach lock,$(LOCKS),"$$new/$(lock)") . && grep -c '^[a-z]' $(LOCKS)

# pip-audit succeeds, too, where the index has no list of vulnerabilities.
audit: install
	@log=$$($(AUDIT) --disable-pip --require-hashes --progress-spinner off $(addprefix -r ,$(LOCKS)) 2>&1); code=$$?; \
	case "$$log" in *'could not be audited'* | *'ould not connect'* | *requests.exceptions*) \
	  echo 'make audit could not ask about every package: the index can'\''t be reached, or has no list of vulnerabilities.' >&2;; \
	esac; \
	case "$$log" in *'could not be audited'*) [ $$code -ne 0 ] || exit 1;; *'ould not connect'* | *requests.exceptions*) exit 1;; esac; \
	printf '%s\n' "$$log"; exit $$code

format: install
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(MAKE) notebooks

notebooks: install
	$(BIN)/python tests/notebooks/test_train.py
	$(BIN)/jupytext --quiet --update --to ipynb notebooks/*.py

screenshot: install
	$(BIN)/pddm-lab demo
	$(BIN)/pddm-lab screenshots demo --only overview --out .github

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache pddm_lab.egg-info build
	find . -name __pycache__ -type d -not -path './data/*' -not -path './runs/*' -prune -exec rm -rf {} +
