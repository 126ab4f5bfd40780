# In the lab host: boots the demonstration guest under KVM with Tenon and with QEMU in turn and says
# when its init speaks: boot.sh ROUNDS. No round begins after four minutes. A line for each boot,
# "bench: CONTENDER ROUND EXEC ENTRY": microseconds from exec and from kernel entry to init (see
# boot-timer.c). Round 0 is the warm-up.
#
# The contenders' devices: a serial port and a virtio disk, on the bus that the board has.
#
# SPDX-License-Identifier: GPL-2.0-or-later
guest=/tmp/guest # in memory: the payload's disk is slow, and no part of this
mkdir $guest
cp vmlinux initrd disk.raw $guest/
mount -t tracefs trace /sys/kernel/tracing || exit 1
append='console=ttyS0 quiet tenon.demo=auto'

tenon() {
    boot "$1" /lab/bin/tenon run --quiet --accel kvm --cpus 1 --memory 256M --no-rng \
        --kernel $guest/vmlinux --initrd $guest/initrd --append "$append" \
        --disk $guest/disk.raw --board "$2"
}

qemu() {
    name=$1
    shift
    boot "$name" /lab/bin/qemu-system-x86_64 -L /lab/qemu -nodefaults -no-user-config \
        -display none -accel kvm -cpu host -smp 1 -m 256 -serial stdio \
        -kernel $guest/vmlinux -initrd $guest/initrd -append "$append" \
        -drive if=none,id=d,file=$guest/disk.raw,format=raw "$@"
}

# A boot that fails says so and is left out: the driver misses its line.
boot() {
    name=$1
    shift
    echo "bench: $name $round $(boot-timer 'demo: init' "$@" 2>/tmp/errors)"
    grep '^boot-timer' /tmp/errors
}

# qboot loads the kernel itself: the quickest firmware that microvm has, without option ROMs.
microvm=microvm,x-option-roms=off,pit=off,pic=off,rtc=off,isa-serial=on,auto-kernel-cmdline=off
round=0
read -r seconds _ </proc/uptime
while [ $round -le "$1" ] && [ "${seconds%.*}" -lt 240 ]; do
    tenon tenon-micro micro
    tenon tenon-q35 q35
    qemu qemu-q35 -M q35 -device virtio-blk-pci,drive=d
    qemu qemu-microvm -M $microvm -bios qboot.rom -device virtio-blk-device,drive=d
    round=$((round + 1))
    read -r seconds _ </proc/uptime
done
