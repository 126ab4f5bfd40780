# A whole Debian under real KVM, from nothing but its disk: firmware, GRUB, kernel, systemd, the login
# prompt; root logs in there, and powers off.
# Arguments: bios or uefi, the folder of the firmware's Debian package, seconds of the host's clock that
# it may take.
. /lab/common.sh

kind=$1 limit=$3
log=/lab/out/debian.log
install_firmware "$2"
chown user /lab/out

# await WHAT TEXT: the console must show TEXT before the limit, and while the VM lives. Whether it lives
# is asked first: its last words may come between the two.
await() {
    until
        kill -0 $vm 2>/dev/null
        dead=$?
        read -r now _ </proc/uptime
        grep -q "$2" $log
    do
        if [ $dead != 0 ] || [ "${now%.*}" -gt "$limit" ]; then
            failed "$1: no '$2' at $now s"
            return 1
        fi
        sleep 1
    done
    passed "$1, at $now s"
}

# The exchange with the guest; what fails ends it.
session() {
    await 'the login prompt' 'debian login: ' || return
    echo root >&3
    await 'root logs in' 'root@debian:~#' || return
    cat /lab/questions >&3
    await 'systemd says that it runs' 'state=running' || return
    await 'the firmware is the one asked for' "firmware=$kind" || return
    echo poweroff >&3
    await 'systemd powers off' 'Power down'
}

cat >/lab/questions <<'TEXT'
echo state=$(systemctl is-system-running --wait)
echo firmware=$([ -d /sys/firmware/efi ] && echo uefi || echo bios)
TEXT
mkfifo /tmp/keys
: >$log
as_user "timeout -k 5 $limit $tenon run disk.img --accel kvm --memory 512M" </tmp/keys >>$log 2>&1 &
vm=$!
exec 3>/tmp/keys
if session; then
    wait $vm
    expect 'tenon ends with status 0' [ $? = 0 ]
else
    killall tenon
    wait $vm
fi
expect 'the engine is KVM' grep -q 'engine: kvm' $log
tr -d '\r' <$log | grep -a -E '^( *(image|engine|firmware)|stage|boot loader|kernel entry|init|end)' |
    sed 's/^/    /'
[ $failures = 0 ] || tail -n 40 $log
finish
