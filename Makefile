# The short way in; meson.build is the build itself.
#   make         build/sosia
#   make run     everything for a first look: packages, build, demo guest, and the guest runs here
#   make check   everything for a change: packages, two builds (one with sanitizers), every test
#   make check-long   the same with guests in every variant, not in samples: an hour or more
#   make crash   power cuts and kill -9, more than two thousand of them, at random moments of all that is
#                done with disk images: some minutes (make check has 450)
#   make fuzz     looks for new failures with libFuzzer, 10 minutes a target (FUZZ=seconds)
#   make bench   how fast the engine interp is, against Bochs and this machine
#   make bench-jit   how fast the engine jit is, against QEMU's TCG and this machine: half an hour;
#                with BENCH=--short some minutes
#   make bench-disk   how fast disks are, against qemu-img and QEMU's virtio disk under TCG
#   make bench-vms   what creating, cloning, snapshots and going back to them cost
#   make bench-smp   what a second vCPU is worth
BUILD := build
FUZZ := 600
BENCH :=

.PHONY: all run check check-long crash fuzz bench bench-jit bench-disk bench-smp bench-vms setup clean
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

check-long: setup
	@tests/check.py --long

crash: setup
	@$(MAKE) --no-print-directory all
	SOSIA_TEST_LONG=1 $(BUILD)/tests/crash/crash $(BUILD)/sosia 2>$(BUILD)/crash.log

fuzz: setup
	@tests/fuzz/run.sh $(FUZZ)

bench:
	@scripts/setup.sh bench
	@$(MAKE) --no-print-directory all
	@bench/prepare.sh $(BUILD)/bench
	@bench/interp.py $(BUILD)/bench

bench-jit:
	@scripts/setup.sh bench
	@$(MAKE) --no-print-directory all
	@bench/prepare-engines.sh $(BUILD)/bench
	@bench/engines.py $(BUILD)/bench $(BENCH)

bench-disk:
	@scripts/setup.sh bench
	@$(MAKE) --no-print-directory all
	@bench/disk.py $(BENCH)

bench-smp:
	@scripts/setup.sh bench
	@$(MAKE) --no-print-directory all
	@bench/prepare.sh $(BUILD)/bench
	@bench/smp.py $(BUILD)/bench

bench-vms:
	@scripts/setup.sh bench
	@$(MAKE) --no-print-directory all
	@bench/vms.py $(BENCH)

clean:
	rm -rf $(BUILD) build-asan build-fuzz demo
