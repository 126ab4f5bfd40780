# kill -9 of the VMM, and of the tenon command, leaves nothing behind: no process, no lock, no busy
# tap device, no file. The proof of the locks and the tap is that the next VM takes them.
. /lab/common.sh

make_tap
cat >examples/kill.yaml <<END
name: kill
accel: kvm
memory: 256M
kernel: ../.cache/demo-guest/cloud/vmlinux
initrd: ../.cache/demo-guest/cloud/initrd
append: console=ttyS0 quiet tenon.demo=script lab.sleep=1000
disks:
  - ../.cache/demo/disk.raw
nets:
  - kind: user
  - {kind: tap, ifname: tap0}
END

ours() {
    pidof tenon tenon-vmm tenon-slirp
}

# Everything that tenon could leave in the file system.
files() {
    find /tmp /run /dev/shm /lab/.cache/demo /lab/examples 2>/dev/null | grep -v '/tmp/expect' | sort
}

start() {
    log=/lab/out/kill-$1.log
    rm -f "$log"
    as_user "$tenon run examples/kill.yaml" </dev/null >"$log" 2>&1 &
    runner=$!
    expect "$1: the guest is up" await_line 60 "$log" '^guest: asleep'
}

# gone WHO: within a second and a half, nothing is left.
gone() {
    tries=0
    while [ $tries -lt 15 ]; do
        [ -n "$(ours)" ] || ! grep -q 0 /sys/class/net/tap0/carrier || break
        usleep 100000
        tries=$((tries + 1))
    done
    expect "$1: no process is left" [ -z "$(ours)" ]
    expect "$1: the tap has no user" grep -q 0 /sys/class/net/tap0/carrier
    files >/tmp/expect.after
    expect "$1: no file is left" cmp /tmp/expect.before /tmp/expect.after
}

fresh_disk guest.raw
files >/tmp/expect.before

start vmm
expect 'there is one VMM' [ "$(pidof tenon-vmm | wc -w)" = 1 ]
kill -9 "$(pidof tenon-vmm)"
wait $runner
status=$?
expect 'tenon reports the death of the VMM' [ $status = 1 ]
tail -n 2 "$log" | sed 's/^/    /'
gone vmm

# Only now does the second start prove that disk and tap are free again.
start tenon
kill -9 "$(pidof tenon)"
wait $runner
gone tenon

start again
kill -TERM "$(pidof tenon)"
sleep 1
kill -TERM "$(pidof tenon)" 2>/dev/null
wait $runner
gone again
finish
