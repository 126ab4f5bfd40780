# Stock firmware boots a stock disk under real KVM: SeaBIOS or OVMF, GRUB, kernel, init.
# Arguments: bios or uefi, the folder of Debian's package.
. /lab/common.sh

kind=$1
log=/lab/out/firmware.log
# Where Debian's package has it, and Tenon looks for it.
mkdir -p /usr/share
mv "/lab/$2" /usr/share/
chown user /lab/out /lab/disk.img
as_user "timeout -k 5 200 $tenon run --accel kvm --firmware $kind --disk disk.img" \
    </dev/null >"$log" 2>&1
status=$?
tr -d '\r' <"$log" | grep -a -E '^(disk:|  engine|stage|boot loader|kernel entry|init|end)' |
    sed 's/^/    /'
expect 'tenon ends with status 0' [ $status = 0 ]
expect 'the engine is KVM' grep -q 'engine: kvm' "$log"
expect 'the firmware starts the boot loader' grep -q '^boot loader' "$log"
expect 'the system on the disk starts' grep -q "disk: init, $kind" "$log"
expect 'and reaches its end' grep -q 'disk: done' "$log"
[ $status = 0 ] || tail -n 30 "$log"
finish
