# Stock firmware boots a stock disk under real KVM: SeaBIOS, GRUB, kernel, init.
. /lab/common.sh

log=/lab/out/firmware.log
# Where Debian's package has it, and Tenon looks for it.
mkdir -p /usr/share
mv /lab/seabios /usr/share/
chown user /lab/out /lab/bios.img
as_user "timeout -k 5 200 $tenon run --accel kvm --firmware bios --disk bios.img" \
    </dev/null >"$log" 2>&1
status=$?
tr -d '\r' <"$log" | grep -a -E '^(disk:|  engine|stage|boot loader|kernel entry|init|end)' |
    sed 's/^/    /'
expect 'tenon ends with status 0' [ $status = 0 ]
expect 'the engine is KVM' grep -q 'engine: kvm' "$log"
expect 'the firmware starts the boot loader' grep -q '^boot loader' "$log"
expect 'the system on the disk starts' grep -q 'disk: init, bios' "$log"
expect 'and reaches its end' grep -q 'disk: done' "$log"
[ $status = 0 ] || tail -n 30 "$log"
finish
