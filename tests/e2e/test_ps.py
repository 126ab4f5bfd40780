"""
Running VMs by name: tenon ps, tenon stop, what a killed tenon leaves behind.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import os
import pathlib
import re
import uuid

import pytest

from conftest import ECHO, HALT, wait_for

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason='the list of root is /run/tenon')


@pytest.fixture
def name():
    return 'test-' + uuid.uuid4().hex[:12]


def listed(tenon, name):
    rows = json.loads(tenon.run_beside('ps', '--json').stdout)
    return [row for row in rows if row['name'] == name]


def start(tenon, name, *args, code=HALT):
    process = tenon.start('run', '--accel', 'soft', '--quiet', '--memory', '64M', '--kernel',
                          tenon.guest('guest', code), '--name', name, *args)

    def there():
        assert process.poll() is None, process.communicate()[1]
        return any(row['pid'] == process.pid for row in listed(tenon, name))
    wait_for(there, 30, 'the VM in the list')
    return process


def test_list_and_stop(tenon, name):
    process = start(tenon, name)
    row, = listed(tenon, name)
    assert row['pid'] == process.pid and row['engine'] == 'soft' and row['status'] == 'running'
    table = tenon.run_beside('ps').stdout.splitlines()
    assert [line for line in table if line.startswith(name)] and not [line for line in table if line.endswith(' ')]
    # This guest hears no power button.
    result = tenon.run_beside('stop', name, '--wait', '1')
    assert result.returncode == 1 and 'tenon stop --now ' + name in result.stderr
    assert tenon.run_beside('stop', '--now', name).returncode == 0
    assert process.wait(60) == 0
    assert not listed(tenon, name) and not os.path.exists(row['socket'])


def test_two_of_a_name_and_a_socket_elsewhere(tenon, name):
    first, second = start(tenon, name), start(tenon, name, '--qmp', 'control.sock')
    result = tenon.run_beside('stop', '--now', name)
    assert result.returncode == 2 and str(first.pid) in result.stderr, result.stderr
    assert tenon.run_beside('stop', '--now', str(first.pid)).returncode == 0
    assert first.wait(60) == 0
    assert tenon.run_beside('stop', '--now', 'control.sock').returncode == 0
    assert second.wait(60) == 0
    assert not listed(tenon, name)


def test_top(tenon, name):
    """A guest that asks its serial port again and again, and one that sleeps."""
    busy = start(tenon, name, '--console', 'serial,backend=null', code=ECHO)
    idle = start(tenon, name, '--disk', tenon.disk())

    def rows():
        result = tenon.run_beside('top', '--once', '--json', '--interval', '1')
        assert result.returncode == 0, result.stderr
        return {row['pid']: row for row in json.loads(result.stdout)}
    wait_for(lambda: rows()[busy.pid]['exits'] > 1000 * rows()[idle.pid]['exits'] > -1, 60)
    row = rows()[busy.pid]
    assert row['name'] == name and row['status'] == 'running' and row['resident_bytes'] > 1 << 20
    table = tenon.run_beside('top').stdout  # no terminal: once
    assert re.search(r'^%s +%d running( +[0-9.]+){7}$' % (name, busy.pid), table, re.M)
    assert tenon.run_beside('top', '--interval', '0').returncode == 2
    for process in (busy, idle):
        assert tenon.run_beside('stop', '--now', str(process.pid)).returncode == 0
        assert process.wait(60) == 0


def test_killed_tenon_is_swept(tenon, name):
    process = start(tenon, name)
    row, = listed(tenon, name)
    process.kill()
    process.wait()
    assert pathlib.Path(row['socket']).exists()
    assert not listed(tenon, name)
    assert not pathlib.Path(row['socket']).exists()


def test_bad_words(tenon):
    for args, status, word in ((('stop', 'no-such-vm'), 1, 'tenon ps'), (('stop',), 2, 'tenon ps'),
                               (('stop', 'a', 'b'), 2, "'b'"), (('ps', 'x'), 2, "'x'"),
                               (('stop', 'a', '--wait', 'long'), 2, "'long'")):
        result = tenon.run(*args)
        assert result.returncode == status and word in result.stderr, result.stderr
