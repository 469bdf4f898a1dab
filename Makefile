# Countersign: short names for what meson and the tools do. Two commands matter: demo and check.
BUILD  ?= build
MESON   = meson setup $(1) --reconfigure $(2) >/dev/null 2>&1 || meson setup $(1) $(2) >/dev/null
PYTHON ?= /usr/bin/python3

all: build            ## install what it needs (as root or with sudo), build everything
deps:                 ## the Debian packages that building and testing need; nothing when they are there
	@tools/deps
build: deps
	@$(call MESON,$(BUILD),-Dfatal_warnings=true --buildtype=debugoptimized)
	@ninja -C $(BUILD) --quiet
demo: build           ## a scratch PostgreSQL, the gateway, an agent, and one DROP TABLE that waits for a person
	@$(PYTHON) examples/demo/demo.py --build $(BUILD)
check: build          ## every test; the closing line counts them
	@$(PYTHON) tests/run.py --build $(BUILD)
check-drivers: build  ## the clients that need Java, Go, Rust or Node; says which of them it could not install
	@tools/deps drivers
	@$(PYTHON) tests/drivers/check.py --build $(BUILD)
check-suites: build   ## test suites of clients, at the server and through the gateway; their source comes from elsewhere (about 40 minutes)
	@tools/deps suites
	@$(PYTHON) tests/suites/check.py --build $(BUILD)
asan: deps            ## the same tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@$(call MESON,$(BUILD)-asan,-Dfatal_warnings=true --buildtype=debugoptimized -Db_sanitize=address$(comma)undefined)
	@ninja -C $(BUILD)-asan --quiet
	@$(PYTHON) tests/run.py --build $(BUILD)-asan
fuzz: deps            ## every fuzz harness for SECONDS (60) each, with clang
	@CC=clang meson setup $(BUILD)-fuzz -Dfuzzers=true --buildtype=debugoptimized >/dev/null 2>&1 || true
	@ninja -C $(BUILD)-fuzz --quiet fuzzers
	@tools/fuzz $(BUILD)-fuzz $(or $(SECONDS),60) $(ONLY)
crash: build          ## SEEDS (100000) crash points of recorder and store on a disk in memory, from number FIRST (1) on
	@CS_CRASH_SEEDS=$(or $(SEEDS),100000) CS_CRASH_FIRST=$(or $(FIRST),1) meson test -C $(BUILD) --no-rebuild --timeout-multiplier 0 --verbose crash-record crash-store
fuzz-server: build   ## classification against a real server with new texts, for SECONDS (60); SEED=N repeats one round
	@$(PYTHON) tests/differential/fuzz.py --build $(BUILD) --seconds $(or $(SECONDS),60) $(if $(SEED),--seed $(SEED))
check-regress: build  ## PostgreSQL's own regression SQL against the classification; says when it cannot get it; FILES=a,b for some
	@$(PYTHON) tests/differential/regress.py --build $(BUILD) $(if $(FILES),--files $(FILES))
bench: build          ## the figures of docs/performance.md; ONLY=NAME for one
	@$(PYTHON) bench/run.py --build $(BUILD) $(if $(ONLY),--only $(ONLY))
lint: deps            ## format, banned words, layers, tables against documents, static analysis
	@tools/lint
format: deps          ## clang-format in place
	@git ls-files 'src/*.[ch]' 'tests/*.[ch]' 'fuzz/*.c' 'bench/*.c' | xargs clang-format -i
clean:
	@rm -rf $(BUILD) $(BUILD)-asan $(BUILD)-fuzz
help:
	@grep -E '^[a-z-]+:.*##' Makefile | sed 's/:.*##/\t/'

comma := ,
.PHONY: all deps build demo check check-drivers check-suites asan fuzz fuzz-server check-regress bench lint format clean help crash
