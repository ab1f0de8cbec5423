# Hearth. Two commands set it up:
#   make mount   build, make a drive called home, show it at ~/Hearth
#   make test    run the tests
# The others: build bench lint fuzz race interop install clean.

SHELL    := /bin/bash
GO       ?= go
PREFIX   ?= /usr/local
DRIVE    ?= home
DIR      ?= $(HOME)/Hearth
BENCH    ?=
FUZZTIME ?= 100000x
HEARTH   := $(CURDIR)/bin/hearth

STATICCHECK := honnef.co/go/tools/cmd/staticcheck@v0.8.2

.PHONY: build mount test bench lint fuzz race interop install clean fuse

# The Go toolchain stamps the version (commit, modified or not) by itself.
build:
	CGO_ENABLED=0 $(GO) build -trimpath -buildvcs=auto -o bin/hearth ./cmd/hearth

# A daemon of an older build is ended first; it mounts its drives again when
# the new one starts.
mount: build fuse
	@set -eu; hearth='$(HEARTH)'; dir='$(DIR)'; \
	"$$hearth" list >/dev/null 2>&1 || "$$hearth" stop; \
	drives=$$("$$hearth" list); \
	if ! awk -v d='$(DRIVE)' '$$1 == d { found = 1 } END { exit !found }' <<<"$$drives"; then \
	    "$$hearth" create '$(DRIVE)' >/dev/null; \
	fi; \
	if ! awk -v d='$(DRIVE)' -v dir="$$dir" '$$1 == d && index($$0, dir) { found = 1 } END { exit !found }' <<<"$$drives"; then \
	    mkdir -p "$$dir"; "$$hearth" mount '$(DRIVE)' "$$dir"; \
	fi; \
	q() { printf %q "$$1"; }; h=$$(q "$$hearth"); d=$$(q "$$dir"); \
	printf '%s\n' "The drive $(DRIVE) is the folder $$dir. Try:" "" \
	    "    echo 'Dear Ada,' | tee $$d/letter.txt" \
	    "    echo 'Dear Grace,' | tee $$d/letter.txt" \
	    "    $$h log $$d/letter.txt" \
	    "    $$h undo $$d/letter.txt" \
	    "    cat $$d/letter.txt" \
	    "    ls $$d/.history/by-file/letter.txt" \
	    "    rm $$d/letter.txt && $$h undo $$d" \
	    "    $$h status" ""

# Root mounts by itself; everyone else through the setuid helper fusermount3.
fuse:
	@case "$$(uname -s)" in \
	Darwin) [ -d /Library/Filesystems/macfuse.fs ] || \
	    echo "note: a mount on macOS needs macFUSE: brew install --cask macfuse" >&2; exit 0 ;; \
	esac; \
	if [ "$$(id -u)" = 0 ] || command -v fusermount3 >/dev/null; then exit 0; fi; \
	echo "installing fuse3, which mounts need" >&2; \
	if command -v apt-get >/dev/null; then sudo apt-get update -q && sudo apt-get install -qy fuse3; \
	elif command -v dnf >/dev/null; then sudo dnf install -y fuse3; \
	elif command -v pacman >/dev/null; then sudo pacman -S --noconfirm fuse3; \
	elif command -v apk >/dev/null; then sudo apk add fuse3; \
	else echo "error: fusermount3 is missing; install the package fuse3" >&2; exit 1; fi

test: fuse
	$(GO) test -timeout 30m ./...

# BENCH takes flags: make bench BENCH='-quick', or -only create,untar -reps 5.
bench: build
	$(GO) run ./cmd/bench -hearth '$(HEARTH)' $(BENCH)

lint:
	@out=$$(gofmt -l .); [ -z "$$out" ] || { echo "not formatted by gofmt:"; echo "$$out"; exit 1; }
	$(GO) vet ./...
	$(GO) run $(STATICCHECK) ./...

# Every fuzz target there is, FUZZTIME inputs each. A count, not a duration: at
# the end of a duration go test sometimes calls its own deadline a failure
# (golang.org/issue/75804).
fuzz:
	@set -eu; n=0; \
	for pkg in $$($(GO) list ./...); do \
	    targets=$$($(GO) test -list '^Fuzz' "$$pkg" | grep '^Fuzz' || true); \
	    for t in $$targets; do \
	        echo "fuzz $$pkg $$t"; n=$$((n + 1)); \
	        $(GO) test -run '^$$' -fuzz "^$$t\$$" -fuzztime $(FUZZTIME) -fuzzminimizetime 5x "$$pkg"; \
	    done; \
	done; \
	echo "$$n fuzz targets ran, $(FUZZTIME) each"; [ $$n -gt 0 ]

race: fuse
	CGO_ENABLED=1 $(GO) test -race -short -timeout 30m ./...

# Judges written by others, in a module of their own: tessera and torchwood.
interop:
	cd log/interop && $(GO) vet ./... && $(GO) test -count=1 -timeout 10m ./...

install: build
	install -d '$(DESTDIR)$(PREFIX)/bin' '$(DESTDIR)$(PREFIX)/share/man/man1' \
	    '$(DESTDIR)$(PREFIX)/share/bash-completion/completions'
	install -m 755 bin/hearth '$(DESTDIR)$(PREFIX)/bin/hearth'
	bin/hearth man > '$(DESTDIR)$(PREFIX)/share/man/man1/hearth.1'
	bin/hearth completion bash > '$(DESTDIR)$(PREFIX)/share/bash-completion/completions/hearth'

clean:
	rm -rf bin
	$(GO) clean -testcache
