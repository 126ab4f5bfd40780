"""
Structured logs: JSON lines, and systemd's journal with a socket of the test in its place.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import datetime
import json
import os
import pathlib
import socket

import pytest

from conftest import HALT, debug_exit, serial_text

# `tenon run` with an engine that logs what it runs, so that tenon-vmm has something to say.
TALKS = ('--memory', '16M', '--board', 'micro', '--accel', 'soft', '--accel-debug', 'trace', '--debug-exit', '--verbose',
         '--quiet', '--name', 'web')


def test_run_json(tenon):
    guest = tenon.guest('guest', serial_text('hello') + debug_exit(0) + HALT)
    done = tenon.run('run', '--kernel', guest, *TALKS, '--log-format', 'json')
    assert done.stdout == 'hello'
    records = [json.loads(line) for line in done.stderr.splitlines() if line.startswith('{')]
    assert records, done.stderr
    for record in records:
        assert record['component'] == 'tenon-vmm' and record['vm'] == 'web' and record['level'] == 'info'
        assert record['message'].startswith('trace: cpu 0')
        age = datetime.datetime.now(datetime.timezone.utc) - datetime.datetime.fromisoformat(record['time'].replace('Z', '+00:00'))
        assert datetime.timedelta(seconds=-60) < age < datetime.timedelta(minutes=10)
    refused = tenon.run('run', '--kernel', guest, *TALKS, '--log-format', 'xml')
    assert refused.returncode == 2 and "text, json or journald, not 'xml'" in refused.stderr


def test_tenond_json(tenond, tenon, echo):
    """What VMs do is in its log, with names to search for; and nothing but JSON is."""
    tenond.stop()
    (tenon.directory / 'tenond.log').unlink()
    tenond.start('--log-format', 'json')
    tenond.create('one', echo)
    tenond.act('one', 'start', wait=20)
    tenond.act('one', 'stop', wait=20)
    records = [json.loads(line) for line in tenond.log().splitlines()]
    assert all(record['component'] == 'tenond' and record['pid'] == tenond.process.pid for record in records)
    states = [(record['previous'], record['state']) for record in records
              if record.get('vm') == 'one' and 'state' in record]
    assert states[0] == ('stopped', 'starting') and states[-1][1] == 'stopped', states
    ends = [record for record in records if 'result' in record]
    assert [(end['vm'], end['result']) for end in ends] == [('one', 'quit')]
    assert ends[0]['message'] == "VM 'one' has ended: quit: " + ends[0]['reason']


class Journal:
    """What systemd-journald would get, as dictionaries; of programs behind `prefix`."""

    def __init__(self, folder):
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        self.socket.bind(str(folder / 'socket'))
        self.socket.settimeout(30)
        script = folder / 'behind'
        script.write_text('#!/bin/sh\nmount -t tmpfs none /run/systemd && mkdir /run/systemd/journal && '
                          'mount --bind %s /run/systemd/journal || exit 77\nexec "$@"\n' % folder)
        script.chmod(0o755)
        self.prefix = ('unshare', '-m', script)

    def next(self):
        lines = self.socket.recv(65536).decode().splitlines()
        return dict(line.split('=', 1) for line in lines)


@pytest.mark.skipif(os.geteuid() != 0 or not pathlib.Path('/run/systemd').is_dir(),
                    reason='needs root and /run/systemd to put a socket in place of the journal')
def test_run_journald(tenon, tmp_path):
    """The sandboxed tenon-vmm speaks to the journal itself."""
    folder = tmp_path / 'journal'
    folder.mkdir()
    journal = Journal(folder)
    guest = tenon.guest('guest', debug_exit(0) + HALT)
    done = tenon.run('run', '--kernel', guest, *TALKS, '--log-format', 'journald', prefix=journal.prefix)
    if done.returncode == 77 or 'unshare' in done.stderr:
        pytest.skip('no mount namespaces here')
    assert done.returncode == 0 and done.stderr == '', done.stderr
    record = journal.next()
    assert record['SYSLOG_IDENTIFIER'] == 'tenon-vmm' and record['TENON_VM'] == 'web'
    assert record['PRIORITY'] == '6' and record['MESSAGE'].startswith('trace: cpu 0')
    missing = tenon.run('run', '--kernel', guest, *TALKS, '--log-format', 'journald',
                        prefix=('unshare', '-m', 'sh', '-c', 'mount -t tmpfs none /run/systemd && exec "$0" "$@"'))
    assert missing.returncode == 1 and '/run/systemd/journal/socket' in missing.stderr
