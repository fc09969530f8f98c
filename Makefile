# `make demo` and `make test` are all that a newcomer needs; both create .venv on first use.
PYTHON ?= python3
VENV ?= .venv
OUT ?= out/demo-$(shell date +%Y%m%d-%H%M%S)
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: demo test test-slow lint clean

demo: $(VENV)/.installed
	$(BIN)/schedenv tune gmm:1x512x512x512 --seconds 45 --seed 0 --out $(OUT)

test: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m "not slow" -n 2 --dist loadfile --durations 15

test-slow: $(VENV)/.installed-test
	$(BIN)/python -m pytest -m slow --timeout 1800 --durations 15

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV)

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) install --constraint constraints.txt --editable .
	touch $@

$(VENV)/.installed-test: $(VENV)/bin/python pyproject.toml constraints.txt
	$(PIP) install --constraint constraints.txt --editable '.[test,lint,vendor,fleet,tables,postgres,models,train,plot,peers]'
	touch $@ $(VENV)/.installed
