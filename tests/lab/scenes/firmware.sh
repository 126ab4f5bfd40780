# Stock firmware boots a stock disk under real KVM: SeaBIOS or OVMF, GRUB, kernel, init.
# Arguments: bios or uefi, the folder of the firmware's Debian package, seconds that it may take.
. /lab/common.sh

kind=$1 limit=$3
log=/lab/out/firmware.log
install_firmware "$2"
chown user /lab/out /lab/disk.img
as_user "timeout -k 5 $limit $tenon run --accel kvm --firmware $kind --disk disk.img" \
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
