# Boots the VM file of `make run` under real KVM: boot.sh KERNEL CPUS [KERNEL CPUS ...]
. /lab/common.sh

boot() {
    log=/lab/out/boot-$1-$2.log
    fresh_disk
    read -r start _ </proc/uptime
    as_user "timeout -k 5 120 $tenon run examples/demo.yaml --accel kvm $(guest_flags "$1") --cpus $2 \
        --append 'console=ttyS0 quiet tenon.url=http://:8000/hello'" </dev/null >"$log" 2>&1
    status=$?
    read -r end _ </proc/uptime
    echo "lab: $1 kernel, $2 CPUs: from $start to $end s of the host"
    show "$log"
    expect 'tenon ends with status 0' [ $status = 0 ]
    expect 'the guest has all CPUs' grep -q " $2 CPUs" "$log"
    expect 'the guest reaches its end' grep -q '^demo: done' "$log"
    expect 'nothing failed in it' sh -c "! grep -q 'demo: FAILED' $log"
    expect 'it fetched the page' grep -q "fetched .* $(sha256sum /tmp/www/hello | cut -d' ' -f1)" "$log"
    said=$(sed -n 's/^demo: checksum sha256 \([0-9a-f]*\).*/\1/p' "$log")
    stored=$(debugfs -R 'cat /checksum.sha256' $disk 2>/dev/null | cut -d' ' -f1)
    expect 'its checksum is on the disk' [ "${said:-none}" = "$stored" ]
    expect 'the file system is clean' e2fsck -fn $disk
    [ $status = 0 ] || tail -n 30 "$log"
}

serve_page
while [ $# -gt 1 ]; do
    boot "$1" "$2"
    shift 2
done
finish
