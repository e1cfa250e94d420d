# Everything that these make is under build/, and `make clean` removes it. Nothing is done twice: what is up to date stays.
SHELL = /bin/sh
.DEFAULT_GOAL := help
.PHONY: help demo cluster test test-long unit-test check bench bench-cluster build clean lock
export PYTHON
# No __pycache__ in the checkout; what pip installs it compiles itself.
export PYTHONDONTWRITEBYTECODE = 1

PACKAGES := messages services ipam_actor host_actor
# Folders too: they change when a file goes.
SOURCES := $(shell find $(PACKAGES) \( -name '*.py' -o -type d ! -name __pycache__ \) 2>/dev/null)
BIN := build/venv/bin
T ?= tests

help: ## say what can be made
	@sed -n 's/^\([a-z-]*\):.*## \(.*\)/  make \1\t\2/p' $(MAKEFILE_LIST) | expand -t 22
	@echo '  T=tests/unit/...  narrows test, test-long and unit-test; PYTHON=... chooses the interpreter'

demo: build/installed ## install what is missing, start netplugin, walk through the commands on real containers
	@scripts/isolated sh -c 'NETPLUGIN_BUILD_DIR=$$TMPDIR exec "$$@"' demo $(CURDIR)/$(BIN)/python -P -m services.demo

cluster: build/installed ## three hosts, three nats-servers, two tenants with the same addresses, on this machine
	@scripts/isolated $(CURDIR)/$(BIN)/python -P -m services.lab.walk

test: build/installed build/node/fetched ## install what is missing, run the tests (5 minutes at most)
	@scripts/test -m 'not long' $(T)

test-long: build/installed build/node/fetched ## the tests that take longer: full property runs, minute-long outages
	@scripts/test -m long $(T)

unit-test: build/installed ## the unit and property tests, which need no root
	@scripts/test --here -m 'not long' $(if $(filter-out tests,$(T)),$(T),tests/unit tests/properties)

check: build/installed ## style, types, layers, conventions
	@scripts/check

bench: build/installed ## measure an attach beside its peers and beside the floor
	@scripts/isolated env PYTHONPATH=$(CURDIR)/build/importable $(CURDIR)/$(BIN)/python $(CURDIR)/bench/attach.py $(B)
	@scripts/isolated env PYTHONPATH=$(CURDIR)/build/importable $(CURDIR)/$(BIN)/python $(CURDIR)/bench/grants.py

bench-cluster: build/installed ## measure many hosts, many ports beside OVN, restarts, replays, memory (B=--quick)
	@scripts/setup --peers
	@scripts/isolated env PYTHONPATH=$(CURDIR)/build/importable $(CURDIR)/$(BIN)/python $(CURDIR)/bench/cluster.py $(B)

build: build/installed ## make the wheel (build/dist) and install it into build/venv
	@ls build/dist/*.whl

clean: ## remove build/, and with it all that was made here
	@rm -rf build 2>/dev/null || sudo rm -rf build

lock: ## resolve the dependencies anew into requirements/
	@scripts/lock

# The machine's tools and the locked packages. Asked again when the lock or the script changes; instant when nothing is missing.
build/set-up: requirements/dev.txt scripts/setup
	@scripts/setup
	@touch $@

build/node/fetched: $(wildcard tests/node/*)
	@scripts/node-modules
	@touch $@

build/installed: build/set-up pyproject.toml LICENSE README.md $(SOURCES)
	@scripts/wheel
	@touch $@
