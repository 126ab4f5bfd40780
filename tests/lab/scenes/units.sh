# The unit tests of the KVM engine, under real KVM: nothing may fail or be skipped.
# Arguments: their programs.
. /lab/common.sh

for test; do
    expect "$test passes" $test
    # QEMU emulates neither breakpoints nor INT3 for guests of its guests
    [ $test = test_accel_kvm_debug ] || expect "$test skips nothing" sh -c "! $test 2>&1 | grep SKIPPED"
done
finish
