# Everything works on a bare Debian 12 machine: each command first sets up what is missing and says so.
# The work is done by tools/dev; variables of the environment that it reads are listed in `make help`.

PYTHON ?= python3
DEV = $(PYTHON) -m tools.dev

.DEFAULT_GOAL := help
.PHONY: help demo serve test pythons check lint bench generate lock setup clean

help:
	@echo 'make demo      set up all that is missing, then watch a pool at work, with times'
	@echo 'make serve     the same set-up, then a server in the foreground; Ctrl-C ends and removes it'
	@echo 'make test      the same set-up, then every check and test'
	@echo 'make pythons   the Python client'"'"'s tests on the other Pythons, 3.10 to 3.14'
	@echo 'make check     the quick inner loop: format, lint, types, unit tests; no engine'
	@echo 'make lint      format, lint and types alone'
	@echo 'make bench     measure on a real engine'
	@echo 'make generate  generate the stubs from proto/'
	@echo 'make lock      write the lock files in requirements/ anew'
	@echo 'make setup     install and build what needs no engine'
	@echo 'make clean     remove what the set-up made in this clone'
	@echo
	@echo 'DOCKER_HOST      the engine to use; else the default socket; else a private one is started'
	@echo 'SANDPOOL_SERVER_ADDRESS and its like: settings of the server that `make serve` starts'
	@echo 'SANDPOOL_CACHE   downloads, images, the private engine'"'"'s data; ~/.cache/sandpool'
	@echo 'SANDPOOL_OFFLINE set to 1, no registry but the local one is asked for images; so in test and bench'

demo serve test pythons check lint bench generate lock setup clean:
	@$(DEV) $@
