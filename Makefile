# Panic Farm: `make help` lists what there is.

SHELL := /bin/bash
PYTHON ?= $(firstword $(shell for p in python3 python3.13 python3.12 python3.11 /usr/bin/python3; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p; done))
VENV := .venv
# What the kernel build, the virtual board and the virtual environment need on Debian 12.
PACKAGES := linux-source-6.12 qemu-system-arm gcc-aarch64-linux-gnu gcc make flex bison bc perl \
	libelf-dev libssl-dev device-tree-compiler cpio xz-utils patch python3-venv \
	umockdev libusb-1.0-0 fastboot qdl mkbootimg gdb-multiarch \
	openssh-client libwrap0 rsync \
	libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0 fonts-dejavu-core
# What `make test` needs beside them: servers and programs that only tests start.
TEST_PACKAGES := postgresql chromium
# What `make kernel-check` needs beside them; pylibfdt, which dtschema needs, is compiled.
CHECK_PACKAGES := linux-source-6.1 ccache sparse yamllint python3-dev \
	$(if $(filter amd64,$(shell dpkg --print-architecture)),,gcc-x86-64-linux-gnu)
STAMP := $(VENV)/.installed-$(shell cat pyproject.toml constraints.txt | sha256sum | cut -c1-16)
CHECK_STAMP := $(STAMP)-check
BROWSER_STAMP := $(STAMP)-browser
# pytactl needs the package pyserial, which overwrites the module of labgrid's: it lives apart.
ALPACA := $(VENV)/alpaca/bin/pytactl
# For the test of a host of its own. Unpacked only: installing the package would start an sshd.
SSHD := $(VENV)/openssh/usr/sbin/sshd
# crash reads dumps of the architecture that it was built for. This machine stays of one architecture
# and one release of Debian: the package list is a folder, and what comes by it is unpacked there,
# with an emulator. That of bookworm begins in half a minute, that of trixie knows tasks since 6.5.
CRASH := $(VENV)/crash-bookworm/usr/bin/crash
CRASH_OF_TASKS := $(VENV)/crash-trixie/usr/bin/crash
# By its path alone (compat): the finder that is there otherwise costs each start of Python 10 ms.
INSTALL_FARM := $(VENV)/bin/pip install --disable-pip-version-check -q -c constraints.txt \
	--config-settings editable_mode=compat -e
SUDO := $(shell [ "$$(id -u)" = 0 ] || echo sudo)

ENV := devices/virtual.yaml
# The boards that `make validation` works on side by side.
ENVS := devices/virtual.yaml,devices/virtual-2.yaml
CYCLES := 500
FARM := $(VENV)/bin/farm

.PHONY: help setup packages test-packages check-packages alpaca boards build demo test validation soak lint \
	kernel-check debug-kernel stock-kernel night hosts bench mutation faults fuzz cross-check crash clean

help:
	@echo "make demo          set-up, then one panic cycle on the virtual board, with a report"
	@echo "make test          set-up, then all checks and tests"
	@echo "make validation    every scenario of the catalogue, on two virtual boards (ENVS=...)"
	@echo "make soak          500 panics in a row (CYCLES=...): leaks, and errors nobody explains"
	@echo "make setup         Debian packages and the virtual environment"
	@echo "make build         the virtual board's kernel, device tree and initramfs (cached)"
	@echo "make kernel-check  the series, the way a maintainer would check it; \`farm kernel-check --help\`"
	@echo "make boards        every Qualcomm board of the kernel's source; every description, all states"
	@echo "make alpaca        pytactl, for TAC/Alpaca debug boards: .venv/alpaca/bin/pytactl service"
	@echo "make debug-kernel  the scenarios on a kernel with KASAN and lockdep"
	@echo "make stock-kernel  pstore's selftests, with the series and without"
	@echo "make night         a night on four virtual boards, killed three times; builds a kernel"
	@echo "make hosts         nights on four hosts with sshd and exporters, and all faults of distribution"
	@echo "make bench         the figures, as ratios, with their peers beside; half an hour"
	@echo "make mutation      the judge, held against $(COUNT) randomly damaged captures"
	@echo "make faults        $(RUNS) runs with a bench fault at a random moment each"
	@echo "make fuzz          fuzz every format, $(FUZZ_S) s of processor time each (FUZZ_S=..., FUZZ_TARGETS=...)"
	@echo "make cross-check   decoding of damaged regions against a kernel's: STOCK_IMAGE=... for another"
	@echo "make crash         a newer crash, which lists the tasks of a dump of memory, too"
	@echo "make clean         remove the virtual environment; the build cache stays"

setup: packages $(STAMP)

packages:
	$(call install,$(PACKAGES))

test-packages: packages
	$(call install,$(TEST_PACKAGES))

check-packages: packages
	$(call install,$(CHECK_PACKAGES))

define install
	@missing=$$(for p in $(1); do \
		[ "$$(dpkg-query -W -f '$${db:Status-Status}' $$p 2>/dev/null)" = installed ] || echo $$p; \
	done); \
	if [ -n "$$missing" ]; then \
		echo "installing:" $$missing; \
		$(SUDO) apt-get update -q && $(SUDO) env DEBIAN_FRONTEND=noninteractive \
			apt-get install -y -q --no-install-recommends $$missing; \
	fi
endef

# A package's file into a folder, installing nothing.
define download
	cd $(1) && { apt-get download -q $(2) || { $(SUDO) apt-get update -q && apt-get download -q $(2); } }
endef

$(STAMP): | packages
	rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(INSTALL_FARM) '.[dev]'
	touch $@

$(CHECK_STAMP): $(STAMP) | check-packages
	$(INSTALL_FARM) '.[kernel-check]'
	touch $@

$(BROWSER_STAMP): $(STAMP) | test-packages
	$(INSTALL_FARM) '.[browser]'
	touch $@

alpaca: $(ALPACA)

$(ALPACA): $(STAMP)
	$(PYTHON) -m venv $(VENV)/alpaca
	$(VENV)/alpaca/bin/pip install --disable-pip-version-check -q -c constraints.txt 'pytactl>=3.2,<4'
	touch $@

$(SSHD): | packages $(STAMP)
	mkdir -p $(VENV)/openssh
	rm -f $(VENV)/openssh/*.deb
	$(call download,$(VENV)/openssh,openssh-server)
	cd $(VENV)/openssh && dpkg-deb -x openssh-server_*.deb .
	touch $@

$(VENV)/crash-%/usr/bin/crash: | packages $(STAMP)
	rm -rf $(VENV)/crash-$*
	mkdir -p $(VENV)/crash-$*/apt/lists/partial $(VENV)/crash-$*/apt/archives/partial
	cd $(VENV)/crash-$*/apt && touch status && \
	echo "deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]" \
		"$$(apt-get indextargets --format '$$(REPO_URI)' 'Created-By: Packages' \
			'Label: Debian' | head -n 1) $* main" >sources && \
	for step in update '-y --no-install-recommends --download-only install crash'; do \
		apt-get -q -o APT::Architecture=arm64 -o APT::Architectures::=arm64 \
			-o Dir::State="$$PWD" -o Dir::State::status="$$PWD/status" -o Dir::Cache="$$PWD" \
			-o Dir::Etc::sourcelist="$$PWD/sources" -o Dir::Etc::sourceparts=- \
			-o Debug::NoLocking=1 $$step || exit 1; \
	done
	mkdir -p $(VENV)/crash-$*/usr/lib && ln -s usr/lib $(VENV)/crash-$*/lib
	for package in $(VENV)/crash-$*/apt/archives/*.deb; do \
		dpkg-deb --fsys-tarfile "$$package" | tar -x --keep-directory-symlink -C $(VENV)/crash-$* || exit 1; \
	done
	$(call download,$(VENV)/crash-$*/apt,qemu-user-static)
	dpkg-deb --fsys-tarfile $(VENV)/crash-$*/apt/qemu-user-static_*.deb | \
		tar -x -C $(VENV)/crash-$* ./usr/bin/qemu-aarch64-static
	rm -rf $(VENV)/crash-$*/apt
	touch $@

build: setup
	$(VENV)/bin/farm build

lint: setup
	$(VENV)/bin/ruff format --check farm tests
	$(VENV)/bin/ruff check farm tests
	$(VENV)/bin/mypy farm tests

demo: build
	$(FARM) run --lg-env $(ENV) --scenario sysrq-c

# Every DTB with dtschema, and every description through all states: some minutes.
boards: build check-packages $(CHECK_STAMP) $(ALPACA)
	$(FARM) board sweep
	$(VENV)/bin/pytest -m boards tests/boards

kernel-check: setup check-packages $(CHECK_STAMP)
	$(FARM) kernel-check

# The scenarios and the KUnit cases on a kernel with KASAN and lockdep: no splat in any console.
debug-kernel: setup
	$(FARM) build --variant debug
	$(VENV)/bin/pytest -m debug_kernel tests/e2e

# The kernel's selftests of pstore, with the series and without it.
stock-kernel: build
	$(FARM) build --variant stock
	$(VENV)/bin/pytest -m stock_kernel tests/e2e

# A night on four virtual boards, one of two kernels with a planted bug, killed three times.
night: build
	$(VENV)/bin/pytest -m night -s tests/e2e/test_nightly.py

# A night on four hosts (network namespaces with sshd, exporter, two boards each), the same work on one
# board, and every fault of distribution ten times.
hosts: build $(SSHD)
	PANIC_FARM_FAULT_TIMES=10 $(VENV)/bin/pytest tests/hosts/test_nightly_faults.py
	$(VENV)/bin/pytest -m hosts -s tests/hosts

bench: build
	$(VENV)/bin/python -m tests.figures.usb
	$(VENV)/bin/python -m tests.figures.offline
	$(VENV)/bin/python -m tests.figures.signoff
	$(VENV)/bin/python -m tests.figures.signoff --one-build
	$(VENV)/bin/python -m tests.figures.night_report
	$(VENV)/bin/python -m tests.figures.cycle_cost --lg-env $(ENV)
	$(VENV)/bin/python -m tests.figures.replay

# Not part of `make test`: ten minutes of processor time for each of these.
FUZZ_S := 600
FUZZ_TARGETS := file written region zone record infer storage kdump memory-table devicetree vmcoreinfo dmesg \
	elf contents table

fuzz: setup
	$(INSTALL_FARM) '.[dev,fuzz]'
	@for target in $(FUZZ_TARGETS); do \
		echo "fuzzing $$target for $(FUZZ_S) s of processor time"; \
		$(VENV)/bin/python -m tests.fuzz.atheris_run $$target $(FUZZ_S) || exit 1; \
	done

# STOCK_IMAGE names a kernel image without the series; the virtual board's is used without it.
STOCK_IMAGE :=

cross-check: build
	PANIC_FARM_CROSS_CHECK=1 PANIC_FARM_PSTORE_KERNEL='$(abspath $(STOCK_IMAGE))' \
		$(VENV)/bin/pytest -m virtual -s tests/formats/test_kernel_reads.py

# A crash that is as new as the kernel lists its tasks, too; minutes, as it is emulated.
crash: build $(CRASH_OF_TASKS)
	PANIC_FARM_CRASH='$(abspath $(VENV)/crash-trixie)' \
		$(VENV)/bin/pytest -m virtual tests/decode/test_memory_of_a_kernel.py

COUNT := 6000
RUNS := 100
SEED := 1

mutation: setup
	$(VENV)/bin/python -m tests.judge.mutation --count $(COUNT) --seed $(SEED)

faults: build
	PANIC_FARM_FAULT_RUNS=$(RUNS) PANIC_FARM_FAULT_SEED=$(SEED) PANIC_FARM_FAULT_KIND=$(KIND) \
		$(VENV)/bin/pytest -m virtual -s tests/e2e/test_bench_faults.py

validation: build
	$(VENV)/bin/pytest --lg-env $(ENVS)

soak: build
	$(VENV)/bin/python -m tests.figures.soak --lg-env $(ENV) --cycles $(CYCLES)

# Three parts: what needs no board, side by side; what starts virtual boards of its own, which fill
# two cores; the quick part of the validation suite on the boards that the environments name.
test: lint build test-packages $(BROWSER_STAMP) $(SSHD) $(CRASH) $(ALPACA)
	rm -rf .test-results
	$(VENV)/bin/pytest -n auto --maxprocesses 4 --dist loadfile --junit-xml=.test-results/plain.xml
	$(VENV)/bin/pytest -m virtual --junit-xml=.test-results/virtual.xml
	$(VENV)/bin/pytest -m quick --lg-env $(ENVS) --junit-xml=.test-results/validation.xml
	@$(VENV)/bin/python tests/count.py .test-results/*.xml

clean:
	rm -rf $(VENV)
