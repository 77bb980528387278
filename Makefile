# The short way in; meson.build is the build itself.
#   make         build/sosia
#   make run     everything for a first look: packages, build, demo guest, and the guest runs here
#   make check   everything for a change: packages, two builds (one with sanitizers), every test
BUILD := build

.PHONY: all run check setup clean
all: $(BUILD)/build.ninja
	meson compile -C $(BUILD)

$(BUILD)/build.ninja:
	@command -v meson >/dev/null || { echo "meson is missing: run scripts/setup.sh" >&2; exit 1; }
	meson setup $(BUILD)

setup:
	@scripts/setup.sh

run: setup
	@$(MAKE) --no-print-directory all
	@scripts/demo-guest.sh demo
	$(BUILD)/sosia run demo/demo.yaml

check: setup
	@tests/check.py

clean:
	rm -rf $(BUILD) build-asan demo
