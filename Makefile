# Every chore of the project; `make` alone lists them. Everything is installed into $(VENV), nothing outside it.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
C_FILES := $(shell find csrc tests -regex '.*\.\(c\|h\|cpp\|cu\|cuh\)')
BUILT_FROM := pyproject.toml setup.py constraints.txt tools/environment.py ddoq/_version.py $(shell find csrc -type f)

.DEFAULT_GOAL := help
.PHONY: help demo test lint format notebooks sanitize bench clean distclean

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(VENV)/.demo: $(BUILT_FROM)
	@$(PYTHON) tools/environment.py $(VENV) demo
	@touch $@

$(VENV)/.dev: $(BUILT_FROM)
	@$(PYTHON) tools/environment.py $(VENV) dev
	@touch $@

demo: $(VENV)/.demo ## distil scikit-learn's digits, train on the result, print the table: about 3 minutes
	@$(BIN)/ddoq demo

test: $(VENV)/.dev ## run the tests
	@$(BIN)/python -m pytest

lint: $(VENV)/.dev ## check style and types: ruff, mypy, clang-format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/clang-format --dry-run --Werror $(C_FILES)

format: $(VENV)/.dev ## put the style right: ruff, clang-format
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/clang-format -i $(C_FILES)

notebooks: $(VENV)/.dev ## write notebooks/*.ipynb again from their text files
	@$(BIN)/jupytext --quiet --update --to ipynb notebooks/*.py

sanitize: $(VENV)/.dev ## run the C core and its binding under the address, undefined-behaviour and thread sanitisers
	@PATH="$(abspath $(BIN)):$$PATH" tests/sanitize.sh

bench: ## list the benchmark scripts; each writes a JSON file and resumes when run again
	@for script in $$(grep -l __main__ benchmarks/*.py); do \
	    echo "  $(BIN)/python $$script"; sed -n '1s/"""/      /gp' $$script; done

clean: ## remove what was built, and the caches
	rm -rf build dist *.egg-info ddoq/*.so .pytest_cache .mypy_cache .ruff_cache .hypothesis
	rm -f $(VENV)/.demo $(VENV)/.dev
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

distclean: clean ## remove the environment too
	rm -rf $(VENV)
