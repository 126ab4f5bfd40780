# A tap device with the host as its other end: DHCP, ping, and iperf3 in both directions.
. /lab/common.sh

make_tap
cat >/tmp/udhcpd.conf <<END
start 10.9.0.2
end 10.9.0.9
interface tap0
lease_file /tmp/leases
pidfile /tmp/udhcpd.pid
option subnet 255.255.255.0
option router 10.9.0.1
END
touch /tmp/leases
udhcpd -S /tmp/udhcpd.conf
iperf3 -s -D

log=/lab/out/tap.log
fresh_disk guest.raw
sed 's/kind: user/kind: tap\n    ifname: tap0/' examples/demo.yaml >examples/tap.yaml
as_user "timeout -k 5 120 $tenon run examples/tap.yaml --accel kvm --cpus 2 --append \
    'console=ttyS0 quiet tenon.demo=script lab.ping=10.9.0.1 lab.iperf=10.9.0.1'" \
    </dev/null >"$log" 2>&1
status=$?
show "$log"
expect 'tenon ends with status 0' [ $status = 0 ]
expect 'the guest got an address by DHCP' grep -q 'demo: address 10.9.0.' "$log"
expect 'no ping was lost' grep -q 'guest: .* 0% packet loss' "$log"
expect 'iperf3 to the host' grep -q 'guest: iperf3 to the host: .*receiver' "$log"
expect 'iperf3 from the host' grep -q 'guest: iperf3 -R: .*receiver' "$log"
[ $status = 0 ] || tail -n 30 "$log"
finish
