"""
tenond: metrics, as Prometheus reads them, and against what the guest itself counts.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import re
import shutil
import subprocess

import pytest

from conftest import HALT, ROOT, SPIN, wait_for

BUCKET = re.compile('(.*)_bucket(.*),le="([^"]+)"(.*)')


def read_metrics(tenond):
    """{name{labels}: value}, through Prometheus' own parser; what its rules say of names holds."""
    parser = pytest.importorskip('prometheus_client.parser', reason='package python3-prometheus-client is missing')
    text = tenond.good('GET', '/v1/metrics').body.decode()
    values = {}
    for family in parser.text_string_to_metric_families(text):
        assert family.type in ('gauge', 'counter', 'histogram') and family.documentation.endswith('.'), family.name
        assert text.count('# TYPE %s' % family.name + ('_total ' if family.type == 'counter' else ' ')) == 1
        for sample in family.samples:
            labels = ','.join('%s="%s"' % pair for pair in sample.labels.items())
            key = sample.name + ('{%s}' % labels if labels else '')
            assert key not in values
            values[key] = sample.value
    assert len(values) == len([line for line in text.splitlines() if line[0] != '#'])
    last = {}
    for key, value in values.items():
        bucket = BUCKET.fullmatch(key)
        if bucket:
            name, labels = bucket[1], bucket[2] + bucket[4]
            assert value >= last.get((name, labels), 0), key  # each counts those before it as well
            last[name, labels] = value
            if bucket[3] == '+Inf':
                assert value == values['%s_count%s' % (name, labels)]
    return values


def test_metrics(tenond, tenon):
    """Figures agree with those of the VM itself, and counters rise."""
    tenond.create('busy', tenon.guest('spin', SPIN), memory='32M')
    tenond.create('idle', tenon.guest('halt', HALT))
    tenond.act('busy', 'start', wait=20)
    before = read_metrics(tenond)
    assert before['tenon_vm_state{vm="busy",state="running"}'] == 1
    assert before['tenon_vm_state{vm="idle",state="stopped"}'] == 1
    assert before['tenon_vm_memory_bytes{vm="busy"}'] == 32 << 20
    assert before['tenon_vm_resident_memory_bytes{vm="busy"}'] > 1 << 20
    key = 'tenon_vm_instructions_total{vm="busy"}'
    wait_for(lambda: read_metrics(tenond)[key] > before[key])
    tenond.act('busy', 'pause')
    wait_for(lambda: tenond.get('busy')['state'] == 'paused')
    after = read_metrics(tenond)
    tenond.act('busy', 'stop', wait=20)
    stats = tenond.get('busy')['last']['stats']
    assert stats['instructions'] == after[key]
    assert abs(stats['cpu_ns'] / 1e9 - after['tenon_vm_cpu_seconds_total{vm="busy"}']) < 0.01
    mine = tenond.token('mine', 'viewer', vms=['idle'])
    assert b'busy' not in tenond.good('GET', '/v1/metrics', headers=mine).body


@pytest.mark.soak
def test_promtool_has_nothing_to_say(tenond, tenon):
    """Prometheus' own judge of names, types and units, of every family that a VM with disk and network has."""
    promtool = shutil.which('promtool')
    if not promtool:
        pytest.skip('promtool of package prometheus is missing')
    disk = tenon.directory / 'disk.raw'
    disk.write_bytes(bytes(1 << 20))
    tenond.create('busy', tenon.guest('spin', SPIN), disks=[{'path': str(disk)}], nets=[{'kind': 'user'}])
    tenond.act('busy', 'start', wait=20)
    text = tenond.good('GET', '/v1/metrics').body
    assert b'tenon_disk_latency_seconds_bucket' in text and b'tenon_net_frames_total' in text

    def judge(metrics):
        return subprocess.run([promtool, 'check', 'metrics'], input=metrics, capture_output=True, timeout=60)
    judged = judge(text)
    assert (judged.returncode, judged.stdout, judged.stderr) == (0, b'', b'')
    assert judge(text.replace(b'_bytes_total', b'_kilobytes')).returncode  # it does read them


class Guest:
    """A shell in the demonstration guest, over its console."""

    def __init__(self, tenond, demo_guest):
        disk = tenond.directory / 'demo.raw'
        subprocess.run([ROOT / 'tools/demo-guest', 'disk', disk], check=True, capture_output=True)
        self.tenond = tenond
        self.count = 0
        tenond.good('POST', '/v1/vms?start=true', {
            'name': 'demo', 'accel': 'soft', 'cpus': 2, 'memory': '512M', 'board': 'micro',
            'kernel': str(demo_guest / 'vmlinux'), 'initrd': str(demo_guest / 'initrd'),
            'append': 'console=ttyS0 quiet tenon.demo=shell',
            'disks': [{'path': str(disk)}], 'nets': [{'kind': 'user'}]})
        wait_for(lambda: b'demo: address' in self.log(), 240, lambda: 'the guest: %r' % self.log()[-500:])

    def log(self):
        return self.tenond.raw('GET', '/v1/vms/demo/consoles/c0/log').body

    def run(self, command):
        """What a command says. The marks are in no echo of the command."""
        self.count += 1
        first, last = ('mark-%d-%s' % (self.count, word) for word in ('a', 'z'))
        text = 'echo mark-""%s; %s; echo mark-""%s\n' % (first[5:], command, last[5:])
        self.tenond.good('POST', '/v1/vms/demo/consoles/c0/input', {'text': text})
        wait_for(lambda: last.encode() in self.log(), 120, lambda: command)
        return self.log().decode().replace('\r', '').partition(first + '\n')[2].partition(last)[0]


def test_the_guest_counts_the_same(tenond, demo_guest):
    """Disk, network, CPUs and memory: what the guest says lies between two looks of ours."""
    guest = Guest(tenond, demo_guest)
    guest.run('dd if=/dev/urandom of=/mnt/x bs=64k count=32 2>/dev/null; sync; echo 3 >/proc/sys/vm/drop_caches; '
              'cat /mnt/x >/dev/null; ping -c 3 -W 2 $(cat /tmp/gateway)')
    before = read_metrics(tenond)
    disk = guest.run('grep " vda " /proc/diskstats').split()
    lines = [line.split() for line in guest.run('grep -- -req /proc/interrupts').splitlines()]
    interrupts = sum(int(word) for words in lines for word in words[1:3])
    net = guest.run('grep eth0: /proc/net/dev').partition(':')[2].split()
    processors = int(guest.run('grep -c ^processor /proc/cpuinfo'))
    total_kib = int(guest.run('grep MemTotal /proc/meminfo').split()[1])
    after = read_metrics(tenond)

    for figures in (before, after):
        for what in ('kicks', 'requests', 'interrupts'):
            figures[what] = sum(value for key, value in figures.items()
                                if key.startswith('tenon_virtqueue_%s_total{vm="demo",device="d0"' % what))

    def lies_between(key, value, least, late=0):
        assert before[key] - late <= value <= after[key], (key, before[key], value, after[key])
        assert before[key] >= least, (key, before[key])
        print('%s: guest %d, host %d' % (key, value, after[key]))
    lies_between('tenon_disk_requests_total{vm="demo",disk="d0",op="read"}', int(disk[3]), 3)
    lies_between('tenon_disk_bytes_total{vm="demo",disk="d0",op="read"}', 512 * int(disk[5]), 2 << 20)
    lies_between('tenon_disk_bytes_total{vm="demo",disk="d0",op="write"}', 512 * int(disk[9]), 2 << 20)
    lies_between('tenon_net_frames_total{vm="demo",net="n0",direction="receive"}', int(net[1]), 4)
    lies_between('tenon_net_bytes_total{vm="demo",net="n0",direction="receive"}', int(net[0]), 200)
    # The driver counts what it sent when the device has given it back.
    lies_between('tenon_net_frames_total{vm="demo",net="n0",direction="transmit"}', int(net[9]), 4, late=2)
    # Queues of the disk: its reads, writes, discards and flushes; and a question for its serial number is one more.
    lies_between('requests', sum(int(disk[field]) for field in (3, 7, 14, 18)), 10, late=1)
    lies_between('interrupts', interrupts, 10)
    assert 0 < before['kicks'] <= after['requests']  # a doorbell is for one request at least
    assert processors == len([key for key in after if key.startswith('tenon_vcpu_cpu_seconds_total')]) == 2
    assert 0.8 * after['tenon_vm_memory_bytes{vm="demo"}'] < total_kib << 10 <= after['tenon_vm_memory_bytes{vm="demo"}']
    for op in ('read', 'write', 'flush'):
        count = after['tenon_disk_latency_seconds_count{vm="demo",disk="d0",op="%s"}' % op]
        assert count == after['tenon_disk_requests_total{vm="demo",disk="d0",op="%s"}' % op] > 0
        assert after['tenon_disk_latency_seconds_sum{vm="demo",disk="d0",op="%s"}' % op] > 0
    causes = sum(after['tenon_vm_exit_causes_total{vm="demo",cause="%s"}' % cause] for cause in ('pio', 'mmio', 'halt'))
    assert causes > 100
