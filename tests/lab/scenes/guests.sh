# The bare guests of tests/guest on both halves of the software engine and under real KVM: each judges its
# CPU itself, and all must come to the same verdict. guests.sh GUEST CPUS [GUEST CPUS ...]
. /lab/common.sh

on_all() {
    for engine in 'soft --accel-debug xlate-after=0' 'soft --accel-debug xlate-after=1' kvm; do
        expect "$1 with $2 CPUs on $engine" as_user "timeout -k 5 60 $tenon run --accel $engine \
            --debug-exit --quiet --memory 64M --cpus $2 --kernel guests/$1.elf </dev/null"
    done
}

while [ $# -gt 1 ]; do
    on_all "$1" "$2"
    shift 2
done
finish
