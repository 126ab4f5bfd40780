# A real gdb on a guest under real KVM: breakpoints of both kinds, a watchpoint, registers, memory, CPUs as
# threads; and the guest ends as it wants to.
. /lab/common.sh

# debug CPUS COMMAND ...: the guest of tests/guest/debug.S; what gdb says goes to said, the guest's status to status.
debug() {
    cpus=$1
    shift
    rm -f /tmp/gdb.sock
    as_user "timeout -k 5 120 $tenon run --accel kvm --memory 64M --debug-exit --quiet --paused --cpus $cpus \
        --gdb /tmp/gdb.sock --kernel guests/debug.elf </dev/null" &
    vm=$!
    tries=0
    until [ -S /tmp/gdb.sock ] || [ $tries = 600 ]; do
        usleep 100000
        tries=$((tries + 1))
    done
    {
        echo 'set pagination off'
        echo 'set confirm off'
        echo 'target remote /tmp/gdb.sock'
        for command; do
            echo "$command"
        done
    } >/tmp/commands
    timeout -k 5 120 /lab/bin/gdb -nx -batch -x /tmp/commands "/lab/guests/debug.elf64" >/tmp/said 2>&1
    wait $vm
    status=$?
}

says() {
    expect "$1" grep -q -E "$2" /tmp/said
}

debug 1 'break work' 'continue' 'continue' 'print $edi' 'print *(int *)&counter' 'delete' \
    'watch *(int *)&counter' 'continue' 'delete' 'hbreak finish' 'continue' 'print *(int *)&counter' \
    'print *(int *)&int3_count' 'set $xmm3.v4_int32[1] = 77' 'print $xmm3.v4_int32' 'print $cr0 & 1' \
    'set var *(char *)&status = 7' 'continue'
says 'a breakpoint at a symbol' 'Breakpoint 1, .*work'
says 'a register there' '^\$1 = 9$'
says 'memory there' '^\$2 = 10$'
says 'a watchpoint: old value' 'Old value = 10$'
says 'a watchpoint: new value' 'New value = 19$'
says 'a hardware breakpoint, after the loop' '^\$3 = 55$'
says "the guest's own INT3 came back" '^\$4 = 1$'
says 'a vector register is written' '^\$5 = \{0, 77, 0, 0\}$'
says 'a control register' '^\$6 = 1$'
says 'the status that gdb has put into memory' 'exited with code 07'
[ $failures = 0 ] || cat /tmp/said

debug 2 'info threads' 'thread 2' 'print $rip' 'thread 1' 'detach'
says 'each CPU is a thread' 'waits for SIPI'
says 'and has registers of its own' '^\$1 = .*0xfff0'
expect 'a guest that gdb leaves goes on to its end' [ $status = 0 ]
[ $failures = 0 ] || cat /tmp/said
finish
