# make demo    builds plash and shows what it does
# make test    runs the tests; make check runs linters, race tests and short fuzzing; make nightly takes two hours
# make install PREFIX=/usr/local DESTDIR=
# make docs    writes the pages of the manual anew

GO      ?= go
PREFIX  ?= /usr/local
MANDIR  ?= $(PREFIX)/share/man
DESTDIR ?=
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# The program that "make build" makes.
PLASH = bin/plash
# How long each fuzz target runs in "make check".
FUZZTIME ?= 2s
# What "make bench" measures (all, if empty), and how often.
SUITES ?=
ROUNDS ?= 5

# Where Go's own archive unpacks to, for shells that do not look there.
export PATH := $(PATH):/usr/local/go/bin
# One static binary, whatever the machine.
export CGO_ENABLED = 0

# How it is linked: -E has it begin with package replay, not with the Go runtime. That is
# for the machines that replay has assembly for.
LDFLAGS = -s -w $(if $(filter amd64 arm64,$(shell $(GO) env GOARCH 2>/dev/null)),-E plash_entry) -X main.version=$(VERSION)

TOOL = $(GO) tool -modfile=tools/go.mod

.PHONY: all build docs install uninstall test nightly check fmt lint cross race fuzz demo bench clean

all: build

build:
	@command -v $(GO) >/dev/null || { echo "make: Go is not installed: get it from https://go.dev/dl/" >&2; exit 1; }
	$(GO) build -trimpath -buildvcs=false -ldflags '$(LDFLAGS)' -o '$(PLASH)' ./cmd/plash

install: build
	install -d '$(DESTDIR)$(PREFIX)/bin'
	install -m 755 '$(PLASH)' '$(DESTDIR)$(PREFIX)/bin/plash'
	for name in $$('$(PLASH)' help --names); do ln -sf plash '$(DESTDIR)$(PREFIX)/bin/plash-'$$name || exit 1; done
	install -d '$(DESTDIR)$(MANDIR)/man1'
	install -m 644 man/*.1 '$(DESTDIR)$(MANDIR)/man1'

uninstall: build
	for name in $$('$(PLASH)' help --names); do rm -f '$(DESTDIR)$(PREFIX)/bin/plash-'$$name; done
	rm -f '$(DESTDIR)$(PREFIX)/bin/plash'
	for page in man/*.1; do rm -f "$(DESTDIR)$(MANDIR)/man1/$${page#man/}"; done

# The manual's pages, man/ and docs/commands/, are made of the commands' own help. TestManual
# says when they are not.
docs:
	$(GO) test -count=1 ./cmd/plash -run '^TestManual$$' -update

test:
	@scripts/deps test
	@scripts/test ./...

# An hour of random operations, by their seeds, on the union and on what it is held against; all
# workloads on all backends; half a minute of fuzzing for each parser.
nightly:
	@scripts/deps test
	PLASH_RANDOM_TIME=1h scripts/test -timeout 90m -run TestRandomOperations ./fusefs/union
	PLASH_ALL_WORKLOADS=1 scripts/test -timeout 90m -run TestWorkloads ./cmd/plash
	@scripts/fuzz 30s

# What CI runs besides the tests.
check: lint cross race fuzz

lint:
	@scripts/deps check
	@files=$$($(TOOL) gofumpt -l .); [ -z "$$files" ] || { echo "gofumpt would change:" $$files >&2; exit 1; }
	$(GO) vet ./...
	$(GO) -C bench/plot vet ./...
	$(GO) -C bench/plot test ./...
	$(TOOL) staticcheck ./...
	$(GO) test -count=1 .

# Both architectures, tests and all.
cross:
	GOARCH=amd64 $(GO) build -ldflags '$(LDFLAGS)' -o /dev/null ./cmd/plash
	GOARCH=arm64 $(GO) build -ldflags '$(LDFLAGS)' -o /dev/null ./cmd/plash
	GOARCH=arm64 $(GO) vet ./...

# The tests of runtime wait more than they compute: they begin, and others run beside them. The
# race detector has each process sleep at its end, a second if it is not told else, and tests start
# many. Without it: the import rules, and what the kernel's filesystems make of the table of posixtest,
# which the tests of our own run as well.
race:
	@scripts/deps check
	CGO_ENABLED=1 GORACE=atexit_sleep_ms=20 $(GO) test -race -p 2 -exec '$(CURDIR)/scripts/apart' -short -timeout 20m ./runtime \
		$$($(GO) list ./... | grep -v -e '/plash$$' -e '/bench$$' -e '/cmd/' -e '/runtime$$' -e '/posixtest$$')

fuzz:
	@scripts/fuzz $(FUZZTIME)

fmt:
	$(TOOL) gofumpt -w .

demo: build
	@scripts/demo

# SUITES="access union" measures only these, ROUNDS=2 is quick.
bench: build
	@scripts/deps bench
	$(GO) -C bench/plot build -o ../../bin/bench-plot .
	$(GO) run ./bench -n $(ROUNDS) $(SUITES)
	bin/bench-plot bench/out/results.json

clean:
	rm -rf bin bench/out
