"""
tenond: many clients and many VMs at once.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import pathlib
import re
import statistics
import threading
import time

import pytest

from conftest import HALT, PATIENCE, wait_for
from tenond import Connection, Reply, Tenond

CLIENTS = 200
PATHS = ('/v1/host', '/v1/vms', '/v1/vms/one', '/v1/metrics', '/v1/me')


class Client(threading.Thread):
    """Asks until the end; every tenth call comes by a connection of its own."""

    def __init__(self, tenond, end):
        super().__init__()
        self.tenond, self.end = tenond, end
        self.calls, self.errors = 0, []

    def run(self):
        connection = Connection(self.tenond.socket, timeout=120)
        try:
            while not self.calls or time.monotonic() < self.end:
                if self.calls % 10 == 9:
                    connection.close()
                connection.request('GET', PATHS[self.calls % len(PATHS)])
                status = Reply(connection.getresponse()).status
                self.calls += 1
                if status != 200:
                    self.errors.append(status)
        except Exception as error:  # whatever it is, the test tells
            self.errors.append(repr(error))
        connection.close()


def drive(tenond, seconds):
    """200 clients at once; no call may fail."""
    end = time.monotonic() + seconds
    clients = [Client(tenond, end) for _ in range(CLIENTS)]
    for client in clients:
        client.start()
    for client in clients:
        client.join()
    errors = [error for client in clients for error in client.errors]
    calls = sum(client.calls for client in clients)
    print('%d clients, %d s: %d calls, %d errors' % (CLIENTS, seconds, calls, len(errors)))
    assert not errors, errors[:5]
    assert min(client.calls for client in clients) >= 1


@pytest.fixture
def busy(tenon):
    """With a VM that runs, and patient: 200 threads of Python take turns."""
    it = Tenond(tenon).start('--timeout', '120')
    it.create('one', tenon.guest('halt', HALT))
    it.act('one', 'start', wait=60)
    yield it
    it.close()


def test_many_clients(busy):
    drive(busy, 3)
    fds = '/proc/%d/fd' % busy.process.pid
    wait_for(lambda: len(os.listdir(fds)) < 100)  # none of 200 connections is left


@pytest.mark.soak
def test_many_clients_for_a_minute(busy):
    drive(busy, 60)


def resident(pid):
    return int(pathlib.Path('/proc/%d/statm' % pid).read_text().split()[1]) * os.sysconf('SC_PAGESIZE')


@pytest.mark.soak
def test_hundred_machines(tenond, tenon):
    """100 VMs of 96 MiB run at once; what each takes is printed."""
    guest = tenon.guest('halt', HALT)
    names = ['vm%03d' % i for i in range(100)]
    begin = time.monotonic()
    for name in names:
        tenond.create(name, guest, memory='96M')
        tenond.act(name, 'start', wait=60)
    took = time.monotonic() - begin
    states = [vm['state'] for vm in tenond.good('GET', '/v1/vms').json['vms']]
    assert states == ['running'] * 100
    sizes = {}
    for pid, command in tenon.left():
        sizes.setdefault(pathlib.Path(command.split()[0]).name, []).append(resident(pid))
    for name, each in sorted(sizes.items()):
        print('%s: %d processes, %.1f MiB resident each' % (name, len(each), sum(each) / len(each) / (1 << 20)))
    print('%.0f ms a VM from its description to running' % (took * 10))
    begin = time.monotonic()
    tenond.kill()
    tenond.start()
    wait_for(lambda: tenond.good('GET', '/v1/host').json['running'] == 100)
    print('found again after %.2f s, with the start of tenond' % (time.monotonic() - begin))


def proportional(pid):
    """MiB that a process uses; what several share is divided among them."""
    text = pathlib.Path('/proc/%d/smaps_rollup' % pid).read_text()
    return int(re.search(r'^Pss: +([0-9]+)', text, re.MULTILINE)[1]) / 1024


def spread(values, unit):
    return '%.2f %s (from %.2f to %.2f)' % (statistics.median(values), unit, min(values), max(values))


@pytest.mark.soak
def test_hundred_linux_guests(tenond, tenon, demo_guest):
    """100 real guests at once, each with a shell in the end; what each takes is printed."""
    def says(name, text):
        wait_for(lambda: text in tenond.raw('GET', '/v1/vms/%s/consoles/c0/log' % name).body, PATIENCE,
                 '%s of %s' % (text.decode(), name))
    names, times = ['vm%03d' % i for i in range(100)], []
    for name in names:
        begin = time.monotonic()
        tenond.good('POST', '/v1/vms?start=true', {
            'name': name, 'accel': 'soft', 'memory': '96M', 'board': 'micro', 'kernel': str(demo_guest / 'vmlinux'),
            'initrd': str(demo_guest / 'initrd'), 'append': 'console=ttyS0 quiet tenon.demo=shell'})
        says(name, b'demo: modules loaded')
        times.append(time.monotonic() - begin)
    for name in names:
        says(name, b'demo: a shell')
    assert [vm['state'] for vm in tenond.good('GET', '/v1/vms').json['vms']] == ['running'] * 100
    sizes = {}
    for pid, command in tenon.left():
        sizes.setdefault(pathlib.Path(command.split()[0]).name, []).append(proportional(pid))
    assert len(sizes['tenon-vmm']) == 100
    for program, each in sorted(sizes.items()):
        print('%s: %d processes, PSS %s, %.0f MiB in all' % (program, len(each), spread(each, 'MiB'), sum(each)))
    print('from the description to the first program of the guest: %s' % spread(times, 's'))
