# virtio-blk: fio writes and verifies a second disk, with each cache mode and several queues.
. /lab/common.sh

verify() {
    log=/lab/out/disk-$1-$2.log
    fresh_disk guest.raw
    rm -f scratch.raw
    truncate -s "$3M" scratch.raw
    chown user scratch.raw
    as_user "timeout -k 5 200 $tenon run examples/demo.yaml --accel kvm --cpus $2 \
        --disk scratch.raw,cache=$1,queues=$2 \
        --append 'console=ttyS0 quiet tenon.demo=script lab.verify=$2'" </dev/null >"$log" 2>&1
    status=$?
    show "$log"
    expect "cache=$1, $2 queues: status 0" [ $status = 0 ]
    expect "cache=$1, $2 queues: fio verified" grep -q "guest: fio wrote and verified" "$log"
    expect "cache=$1, $2 queues: the guest has $2" grep -q "guest: queues of vdb: $2" "$log"
    [ $status = 0 ] || tail -n 30 "$log"
}

verify writeback 1 32
verify none 2 32
verify writethrough 4 8
finish
