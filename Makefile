# SPDX-License-Identifier: GPL-2.0-or-later
#
# Every target does all set-up that it needs: packages, base, configuration.

BUILD ?= build
JOBS ?= $(shell nproc)
RUNS ?= 5
build := $(abspath $(BUILD))
ninja := scripts/run-ninja $(build) -j$(JOBS)

# What is built; "?" marks a target that exists only if there is something in
# it. The default target of QEMU's build would be far more.
programs := qemu-system-x86_64 qemu-img \
    ?managed-memory-programs ?memory-manager/pager/qemu-memory-pager
tests := ?memory-manager/pager/qemu-memory-pager-test ?managed-memory-tests \
    storage-daemon/qemu-storage-daemon tests/qtest/migration-test

.PHONY: all configured programs tests check check-long demo bench \
        bench-migration docs install clean distclean help
.NOTPARALLEL:

all: programs

help:
	@echo 'make              build QEMU, the manager and the pager'
	@echo 'make check        build and run the tests  [SUITE=name] [TEST=word]'
	@echo 'make check-long   the same, with the tests that take minutes'
	@echo 'make demo         a Linux guest in a quarter of its memory'
	@echo 'make bench        measure, report in BUILD/bench  [ONLY=name] [RUNS=n]'
	@echo 'make bench-migration'
	@echo '                  the same for migration  [ONLY=name] [RUNS=n]'
	@echo 'make docs         man pages in BUILD/man, HTML in BUILD/html'
	@echo 'make install      install  [DESTDIR=dir]'
	@echo 'make clean        remove what was built, keep the downloads'
	@echo 'make distclean    remove the build folder'
	@echo
	@echo 'BUILD=dir: build folder (build); JOBS=n: parallel jobs (all CPUs)'

# config.status repeats the configuration with the options it was made with.
configured:
	@if [ ! -x $(build)/config.status ]; then \
	    ./configure --build-dir=$(build); \
	elif [ configure -nt $(build)/config.status ] || \
	     [ scripts/base.conf -nt $(build)/config.status ] || \
	     [ scripts/packages -nt $(build)/config.status ]; then \
	    $(build)/config.status; \
	else \
	    scripts/materialise --build-dir=$(build); \
	fi

programs: configured
	@$(ninja) $(programs)
	@echo 'built in $(build)/qemu'

tests: configured
	@scripts/install-packages --log=$(build)/packages.log check
	@$(ninja) $(programs) $(tests)

check: tests
	@scripts/run-tests --build-dir=$(build) --suite='$(SUITE)' \
	    --test='$(TEST)'

check-long: tests
	@scripts/run-tests --build-dir=$(build) --suite='$(SUITE)' \
	    --test='$(TEST)' --long

demo: programs
	@scripts/install-packages --log=$(build)/packages.log demo
	@BUILD=$(build) tests/demo/demo

bench: programs
	@scripts/install-packages --log=$(build)/packages.log demo bench
	@BUILD=$(build) tests/bench/bench --runs=$(RUNS) $(ONLY)

bench-migration: programs
	@scripts/install-packages --log=$(build)/packages.log demo bench
	@BUILD=$(build) tests/bench/bench --runs=$(RUNS) --report=migration \
	    $(or $(ONLY),migration migration-busy migration-growth ordinary)

docs: configured
	@scripts/install-packages --log=$(build)/packages.log docs
	@scripts/build-docs --build-dir=$(build) man html

install: programs
	@scripts/install-fork $(build) '$(DESTDIR)' $(JOBS)

clean:
	rm -rf $(build)/qemu $(build)/qemu.options $(build)/config.status \
	    $(build)/check $(build)/bench $(build)/demo $(build)/*.log

distclean:
	@if [ -d $(build)/src ]; then \
	    scripts/materialise --build-dir=$(build) --check-clean; \
	fi
	rm -rf $(build)
