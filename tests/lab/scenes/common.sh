# Helpers of the scenes, which run in /lab of the lab host (see README.md). Sourced.
#
# Tenon runs as an ordinary user here, without any capability.

failures=0
tenon=/lab/bin/tenon

passed() {
    echo "lab: ok: $*"
}

failed() {
    echo "lab: FAILED: $*"
    failures=$((failures + 1))
}

# expect WHAT COMMAND ...: the command must succeed.
expect() {
    what=$1
    shift
    if "$@" >/tmp/expect 2>&1; then
        passed "$what"
    else
        failed "$what: '$*'"
        cat /tmp/expect
    fi
}

# The scene's status.
finish() {
    [ $failures = 0 ]
    exit $?
}

# as_user COMMAND: one string, for the shell of an ordinary user.
as_user() {
    su user -s /bin/sh -c "cd /lab && $*"
}

# Waits up to $1 seconds until file $2 has a line that matches $3.
await_line() {
    tries=0
    until grep -q "$3" "$2" 2>/dev/null; do
        tries=$((tries + 1))
        [ $tries -le $(($1 * 5)) ] || return 1
        usleep 200000
    done
}

# Where the disk of the VM file is, fresh for each boot.
disk=/lab/.cache/demo/disk.raw
fresh_disk() {
    mkdir -p /lab/.cache/demo
    cp "${1:-/lab/.cache/demo-guest/disk.raw}" $disk
    chown -R user /lab/.cache/demo /lab/out
}

# install_firmware FOLDER: puts it where Debian's package has it, and Tenon looks for it.
install_firmware() {
    mkdir -p /usr/share
    mv "/lab/$1" /usr/share/
}

# A page for the guest to fetch, on the host's loopback.
serve_page() {
    mkdir -p /tmp/www
    echo 'hello over http' >/tmp/www/hello
    httpd -p 127.0.0.1:8000 -h /tmp/www
}

# A tap device that the ordinary user may open, with the host's address. By path: busybox prefers
# its own, smaller ip.
make_tap() {
    /lab/bin/ip tuntap add tap0 mode tap user user
    /lab/bin/ip addr add 10.9.0.1/24 dev tap0
    /lab/bin/ip link set tap0 up
}

# guest_flags KERNEL: the flags that choose Debian's cloud or generic kernel.
guest_flags() {
    echo "--kernel .cache/demo-guest/$1/vmlinux --initrd .cache/demo-guest/$1/initrd"
}

# The console of the guest: its own lines.
show() {
    grep -a -E '^(demo|guest):|tenon' "$1" | sed 's/^/    /'
}
