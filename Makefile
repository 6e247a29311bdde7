# Panic Farm: `make help` lists what there is.

SHELL := /bin/bash
PYTHON ?= $(firstword $(shell for p in python3 python3.13 python3.12 python3.11 /usr/bin/python3; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p; done))
VENV := .venv
# What the kernel build, the virtual board and the virtual environment need on Debian 12.
PACKAGES := linux-source-6.12 qemu-system-arm gcc-aarch64-linux-gnu gcc make flex bison bc perl \
	libelf-dev libssl-dev device-tree-compiler cpio xz-utils patch python3-venv \
	umockdev libusb-1.0-0 fastboot qdl mkbootimg
STAMP := $(VENV)/.installed-$(shell cat pyproject.toml constraints.txt | sha256sum | cut -c1-16)
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

ENV := devices/virtual.yaml
# The boards that `make validation` works on side by side.
ENVS := devices/virtual.yaml,devices/virtual-2.yaml
CYCLES := 500
FARM := $(VENV)/bin/farm

.PHONY: help setup packages build demo test validation soak lint kernel-check bench clean

help:
	@echo "make demo          set-up, then one panic cycle on the virtual board, with a report"
	@echo "make test          set-up, then all checks and tests"
	@echo "make validation    every scenario of the catalogue, on two virtual boards (ENVS=...)"
	@echo "make soak          500 panics in a row (CYCLES=...): leaks, and errors nobody explains"
	@echo "make setup         Debian packages and the virtual environment"
	@echo "make build         the virtual board's kernel, device tree and initramfs (cached)"
	@echo "make kernel-check  the series: checkpatch, a build per patch, KUnit"
	@echo "make bench         the figures, as ratios, with their peers beside"
	@echo "make clean         remove the virtual environment; the build cache stays"

setup: packages $(STAMP)

packages:
	@missing=$$(for p in $(PACKAGES); do \
		[ "$$(dpkg-query -W -f '$${db:Status-Status}' $$p 2>/dev/null)" = installed ] || echo $$p; \
	done); \
	if [ -n "$$missing" ]; then \
		echo "installing:" $$missing; \
		$(SUDO) apt-get update -q && $(SUDO) env DEBIAN_FRONTEND=noninteractive \
			apt-get install -y -q --no-install-recommends $$missing; \
	fi

$(STAMP): | packages
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(VENV)/bin/pip install --disable-pip-version-check -q -c constraints.txt -e '.[dev]'
	touch $@

build: setup
	$(VENV)/bin/farm build

lint: setup
	$(VENV)/bin/ruff format --check farm tests
	$(VENV)/bin/ruff check farm tests
	$(VENV)/bin/mypy farm tests

demo: build
	$(FARM) run --lg-env $(ENV) --scenario sysrq-c

kernel-check: setup
	$(FARM) kernel-check

bench: setup
	$(VENV)/bin/python -m tests.figures.usb

validation: build
	$(VENV)/bin/pytest --lg-env $(ENVS)

soak: build
	$(VENV)/bin/python -m tests.figures.soak --lg-env $(ENV) --cycles $(CYCLES)

# Three parts: what needs no board, what starts virtual boards of its own, and the quick part of
# the validation suite on the boards that the environments name.
test: lint build
	rm -rf .test-results
	$(VENV)/bin/pytest --junit-xml=.test-results/plain.xml
	$(VENV)/bin/pytest -m virtual --junit-xml=.test-results/virtual.xml
	$(VENV)/bin/pytest -m quick --lg-env $(ENVS) --junit-xml=.test-results/validation.xml
	@$(VENV)/bin/python tests/count.py .test-results/*.xml

clean:
	rm -rf $(VENV)
