# A small front for meson: the two commands of the README, and what developers call most.
#
#   make run     build, make the Debian guest, boot it
#   make check   every test that fits into a coffee break, with sanitizers, ends with a count
#
# BUILD is the release build, ASAN the same sources under the address and undefined-behaviour
# sanitizers with internal checks on, FUZZ the libFuzzer targets.

BUILD ?= build
ASAN ?= build-asan
FUZZ ?= build-fuzz
PREFIX ?= /usr/local

MESON = meson setup

.PHONY: all deps web run check bench lab soak fuzz format install deb clean

all: deps $(BUILD)/build.ninja
	@ninja -C $(BUILD)

deps:
	@tools/install-deps build run

$(BUILD)/build.ninja:
	@$(MESON) $(BUILD) --prefix $(PREFIX) >/dev/null

$(ASAN)/build.ninja:
	@$(MESON) $(ASAN) -Db_sanitize=address,undefined -Db_lundef=false -Ddebug_checks=true \
	    -Doptimization=1 >/dev/null

$(FUZZ)/build.ninja:
	@CC=clang $(MESON) $(FUZZ) -Dfuzz=true -Dtests=false -Ddebug_checks=true -Doptimization=1 \
	    -Db_lundef=false -Db_sanitize=address,undefined >/dev/null

run: deps $(BUILD)/build.ninja
	@ninja --quiet -C $(BUILD) programs
	@tools/demo $(BUILD) $(ARGS)

# The web console, by npm; the programs do without.
web: $(BUILD)/build.ninja
	@tools/web $(BUILD)

check:
	@tools/install-deps
	@tools/web --if-possible $(BUILD)
	@$(MAKE) -s $(BUILD)/build.ninja $(ASAN)/build.ninja $(FUZZ)/build.ninja
	@tools/check --build $(BUILD) --asan $(ASAN) --fuzz $(FUZZ) $(ARGS)

# Each benchmark runs a rival and Tenon in turn and prints the ratio of medians.
bench: all
	@tools/install-deps lab
	@bench/run --build $(BUILD) $(ARGS)

# Everything that needs real KVM, in an L1 host that QEMU or Bochs emulates: half an hour or so.
lab: all
	@tools/install-deps lab
	@tests/lab/all $(ARGS)

# Real programs inside Debian, on the software engine, with 1 and 4 CPUs: an hour or so; a real Ceph, if
# its packages are there (tools/install-deps soak).
soak: all
	@tools/debian-guest --full
	@tools/debian-guest --full --kernel generic
	@TENON_BUILD=$(BUILD) /usr/bin/python3 -m pytest -p no:cacheprovider -v -m soak tests/e2e $(ARGS)

# A minute for each fuzz target; TIME=3600 for an hour.
TIME ?= 60
fuzz: $(FUZZ)/build.ninja
	@tools/check --fuzz $(FUZZ) --only fuzz --random --fuzz-seconds $(TIME) $(ARGS)

format:
	@git ls-files '*.c' '*.h' | xargs clang-format -i

install: all
	@meson install -C $(BUILD)

# The Debian package with the web console, into build-deb/packages; always from nothing. debhelper hides the home folder,
# and with it the cache of compilations.
deb:
	@tools/install-deps build deb
	@debian/rules clean
	@mkdir -p build-deb/packages
	@tools/web --if-possible build-deb
	@CCACHE_DIR="$${CCACHE_DIR:-$$HOME/.cache/ccache}" DEB_FOLDER=build-deb/packages dpkg-buildpackage --rules-target=binary
	@ls build-deb/packages/*.deb

clean:
	@rm -rf $(BUILD) $(ASAN) $(FUZZ) build-deb
