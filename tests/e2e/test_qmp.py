"""
The control socket of a VM: QMP.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import contextlib
import json
import os
import pathlib
import socket
import time

from conftest import SPIN, Qmp, out_byte, read_until, serial_text, start_guest, wait_for


def test_qmp(tenon):
    process = start_guest(tenon, SPIN, '--name', 'control', '--report', 'r.json')
    qmp = Qmp(tenon.directory / 'qmp')
    assert 'version' in qmp.greeting['QMP']
    assert qmp.command('query-status') == {'running': True, 'singlestep': False,
                                           'status': 'running'}
    assert qmp.command('query-name') == {'name': 'control'}
    assert qmp.command('query-kvm') == {'enabled': False, 'present': True}
    names = {entry['name'] for entry in qmp.command('query-commands')}
    assert {'query-status', 'stop', 'cont', 'system_powerdown', 'quit', 'query-version',
            'query-stats', 'qmp_capabilities'} <= names
    qmp.command('stop')
    qmp.event('STOP')
    assert qmp.command('query-status')['status'] == 'paused'

    def instructions():
        stats = qmp.command('query-stats', target='vm')[0]['stats']
        return {entry['name']: entry['value'] for entry in stats}['instructions']
    stopped = instructions()
    time.sleep(0.2)
    assert instructions() == stopped
    assert 'error' in qmp.raw({'execute': 'system_powerdown'})
    qmp.command('cont')
    qmp.event('RESUME')
    wait_for(lambda: instructions() > stopped, 5, 'progress')
    assert 'error' in qmp.raw({'execute': 'query-stats', 'arguments': {'target': 'cryptodev'}})
    assert qmp.raw({'execute': 'nonsense', 'id': 'i'})['id'] == 'i'
    qmp.command('system_powerdown')
    qmp.event('POWERDOWN')
    qmp.command('quit')
    shutdown = qmp.event('SHUTDOWN')
    assert shutdown['data'] == {'guest': False, 'reason': 'host-qmp-quit'}
    report = qmp.event('TENON_REPORT')['data']
    assert report['result'] == 'quit'
    assert process.wait(10) == 0
    assert json.loads((tenon.directory / 'r.json').read_text())['result'] == 'quit'


def test_qmp_looks_at_the_machine(tenon):
    disk = tenon.disk()
    process = start_guest(tenon, SPIN, '--cpus', '2', '--memory', '64M', '--board', 'q35', '--disk',
                          disk)
    qmp = Qmp(tenon.directory / 'qmp')

    def running():
        cpus = qmp.command('query-cpus-fast')
        return cpus if all(cpu['thread-id'] for cpu in cpus) else None
    cpus = wait_for(running, 5, 'the threads')
    assert [cpu['cpu-index'] for cpu in cpus] == [0, 1]
    for cpu in cpus:
        thread, = pathlib.Path('/proc').glob('*/task/%d/comm' % cpu['thread-id'])
        name = thread.read_text()
        assert name == 'vcpu%02d\n' % cpu['cpu-index']
    assert qmp.command('query-memory-size-summary') == {'base-memory': 64 << 20, 'plugged-memory': 0}
    chardevs = qmp.command('query-chardev')
    assert [(entry['label'], entry['filename']) for entry in chardevs] == [('c0', 'stdio')]
    devices = qmp.command('query-pci')[0]['devices']
    ids = {(entry['id']['vendor'], entry['id']['device']): entry for entry in devices}
    assert ids[0x8086, 0x29c0]['class_info'] == {'class': 0x600}
    blk = ids[0x1af4, 0x1042]
    assert blk['class_info']['class'] == 0x180
    assert all(region['size'] and region['address'] % region['size'] == 0
               for region in blk['regions'])
    qmp.command('quit')
    assert process.wait(10) == 0


def test_qmp_resets(tenon):
    process = start_guest(tenon, serial_text('begin.') + SPIN)
    qmp = Qmp(tenon.directory / 'qmp')
    qmp.command('system_reset')
    assert qmp.event('RESET')['data'] == {'guest': False, 'reason': 'host-qmp-system-reset'}
    assert read_until(process, 'begin.').count('begin.') == 1
    qmp.command('inject-nmi')
    qmp.command('quit')
    assert process.wait(10) == 0


def test_qmp_says_that_the_guest_reset(tenon):
    process = start_guest(tenon, out_byte(0xCF9, 6) + SPIN)
    qmp = Qmp(tenon.directory / 'qmp')
    assert qmp.event('RESET')['data'] == {'guest': True, 'reason': 'guest-reset'}
    qmp.command('quit')
    assert process.wait(10) == 0


def test_qmp_survives_hostile_clients(tenon):
    process = start_guest(tenon)
    path = str(tenon.directory / 'qmp')
    for junk in (b'\0' * 100000, b'{' * 100000, b'"' * 70000, os.urandom(50000), b'{"execute":',
                 b'[]' * 1000 + b'\n'):
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(5)
            wait_for(lambda: client.connect_ex(path) == 0, 10, 'a place')
            with contextlib.suppress(BrokenPipeError, ConnectionResetError, TimeoutError):
                client.sendall(junk)
    # Clients that send commands and never read.
    deaf = [socket.socket(socket.AF_UNIX) for _ in range(3)]
    for client in deaf:
        client.settimeout(0.5)
        wait_for(lambda: client.connect_ex(path) == 0, 10, 'a place')
        with contextlib.suppress(OSError):
            client.sendall(b'{"execute":"qmp_capabilities"}')
            for _ in range(20000):
                client.sendall(b'{"execute":"query-commands"}')
    qmp = Qmp(path)
    assert qmp.command('query-status')['running'] is True
    qmp.command('quit')
    assert process.wait(10) == 0
    for client in deaf:
        client.close()
