# Commands for development on Debian 12. Each command first installs and builds the missing tools, and lists them.
# The commands are implemented in tools/dev. `make help` lists the environment variables that it reads.

PYTHON ?= python3
DEV = $(PYTHON) -m tools.dev

.DEFAULT_GOAL := help
.PHONY: help demo serve test pythons check lint bench generate freeze lock setup clean

help:
	@echo 'Usage: make COMMAND'
	@echo
	@echo 'make demo      Set up everything, then create pools and sandboxes and print the times'
	@echo 'make serve     Set up everything, then run a server in the foreground; Ctrl-C stops it and removes its containers'
	@echo 'make test      Set up everything, then run every check and test'
	@echo 'make pythons   Run the tests of the Python client on Python 3.10 to 3.14 and next to other SDKs'
	@echo 'make check     Run the quick checks: format, lint, types, unit tests; no engine'
	@echo 'make lint      Run format, lint and type checks only'
	@echo 'make bench     Run the benchmarks on a real engine'
	@echo 'make generate  Generate the code from proto/, and the blocking Python client'
	@echo 'make freeze    Write proto/v1.binpb, the contract that later changes must not break'
	@echo 'make lock      Update the lock files in requirements/'
	@echo 'make setup     Install and build the tools that need no engine'
	@echo 'make clean     Remove the files that the setup created in this clone'
	@echo
	@echo 'Environment variables:'
	@echo 'DOCKER_HOST        Engine to use. Default: the default socket, otherwise a private engine'
	@echo 'SANDPOOL_SERVER_*  Settings of the server that `make serve` starts, for example SANDPOOL_SERVER_ADDRESS'
	@echo 'SANDPOOL_CACHE     Directory for downloads, images and the data of the private engine. Default: ~/.cache/sandpool'
	@echo 'SANDPOOL_OFFLINE   Set to 1 to pull images from the local registry only. Tests and benchmarks always do this'

demo serve test pythons check lint bench generate lock setup clean:
	@$(DEV) $@

freeze:
	@$(DEV) freeze $(if $(ALLOW_BREAKING),--allow-breaking)
