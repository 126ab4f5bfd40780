"""
The commands on tenond's VMs, tokens and audit log.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import os
import re
import socket
import subprocess
import time

import pytest

from conftest import HALT, wait_for
from tenond import Tenond

FILE = 'name: web\nkernel: echo\nmemory: 16M\nboard: micro\naccel: soft\ndebug-exit: true\n'


def test_life(tenond, command, tenon, echo):
    (tenon.directory / 'web.yaml').write_text(FILE)
    command('create', 'web.yaml')
    assert tenond.get('web')['config']['kernel'] == str(tenon.directory / 'echo')
    assert 'there is a VM' in command('create', 'web.yaml', status=4)
    command('start', 'web')
    assert json.loads(command('show', 'web', '--json'))['state'] == 'running'
    assert re.search(r'^state +running$', command('show', 'web'), re.M)
    assert 'runs already' in command('start', 'web', status=4)
    wait_for(lambda: command('logs', 'web', '--console', 'c0') == 'hello\n')
    assert command('logs', 'web') == ''
    if os.geteuid() == 0:
        assert re.search(r'^web +\d+ +running', command('ps'), re.M)
        command('stop', tenond.get('web')['pid'], '--now')  # other users' VMs may be called so
        wait_for(lambda: tenond.get('web')['state'] == 'stopped')
        command('start', 'web', '--paused')
        assert 'paused' in command('show', 'web')
    assert 'stop it first' in command('rm', 'web', status=4)
    command('rm', 'web', '--force')
    assert "no VM 'web'" in command('show', 'web', status=1)
    assert 'is no name' in command('show', '../x', status=2)


def test_apply(tenond, command, echo):
    """What a file says becomes so; a second time nothing happens, and nothing is noted."""
    path = tenond.directory / 'web.yaml'
    path.write_text(FILE)
    assert command('diff', path, status=1, out=True) == 'web: created\n'
    assert command('apply', path, '--dry-run') == 'web: created\n'
    assert tenond.good('GET', '/v1/vms').json['vms'] == []
    assert command('apply', path) == 'web: created\n'
    assert command('apply', path) == 'web: unchanged\n' and command('diff', path) == ''
    path.write_text(FILE.replace('16M', '32M') + 'cpus: 2\nconsoles: [serial, "virtio,backend=null"]\n')
    changes = json.loads(command('diff', path, '--json', status=1, out=True))
    assert changes['outcome'] == 'changed'
    assert {change['path']: (change['from'], change['to']) for change in changes['changes']
            if not isinstance(change['to'], dict)} == {'cpus': (1, 2), 'memory': (16 << 20, 32 << 20)}
    assert [change['path'] for change in changes['changes'] if change['from'] is None] == ['consoles[c1]']
    assert re.fullmatch('web: changed\n(- cpus: 1\n\\+ cpus: 2\n|[-+] .*\n)+', command('apply', path, '--dry-run'))
    assert tenond.get('web')['config']['cpus'] == 1
    command('apply', path, '--start')
    vm = tenond.get('web')
    assert vm['config']['cpus'] == 2 and vm['state'] == 'running'
    assert command('apply', path, '--start') == 'web: unchanged\n' and tenond.get('web')['pid'] == vm['pid']
    path.write_text(FILE)
    assert 'stop it before' in command('apply', path, status=4)
    events = tenond.events('/v1/events?after=0')
    seen = [events.next()['type'] for _ in range(2)]
    assert seen == ['vm.created', 'vm.changed']
    events.close()
    noted = [entry['action'] for entry in tenond.good('GET', '/v1/audit').json['entries']]
    assert noted == ['createVm', 'changeVm', 'runAction', 'changeVm']


def test_set(tenond, command, echo):
    tenond.create('web', echo)
    assert command('set', 'web', '--memory', '32M', '--dry-run') == (
        'web: changed\n- memory: 16777216\n+ memory: 33554432\n')
    assert tenond.get('web')['config']['memory'] == 16 << 20
    assert command('set', '--cpus=2', 'web', '--no-rng').count('\n') == 5
    config = tenond.get('web')['config']
    assert config['cpus'] == 2 and config['rng'] is False and config['kernel'] == echo
    assert command('set', 'web', '--cpus', '2') == 'web: unchanged\n'
    assert json.loads(command('set', 'web', '--cpus', '2', '--json'))['changes'] == []
    assert 'expected' in command('set', 'web', '--cpus', 'many', status=2)
    assert "did you mean '--memory'" in command('set', 'web', '--memry', '1G', status=2)
    assert "no VM 'other'" in command('set', 'other', '--cpus', '2', status=1)


def test_ps(tenond, command, echo):
    """With --all, also what does not run."""
    tenond.create('here', echo)
    tenond.create('gone', echo)
    tenond.act('here', 'start', wait=20)
    here = [row['name'] for row in json.loads(command('ps', '--json'))]
    all_of_them = json.loads(command('ps', '--all', '--json'))
    assert 'gone' not in here and {'name': 'gone', 'status': 'stopped'} in all_of_them
    if os.geteuid() == 0:
        assert 'here' in here
    assert re.search('^gone +- +stopped +- +-$', command('ps', '--all'), re.M)


def test_failed_start(tenond, command):
    tenond.create('one', '/nowhere/kernel')
    assert command('start', 'one', status=4) == "tenon: kernel: '/nowhere/kernel' does not exist: check the path\n"


def test_no_daemon(tenon):
    environment = dict(tenon.environment(), TENON_SOCKET=str(tenon.directory / 'nothing'))
    done = subprocess.run([tenon.path, 'show', 'x'], env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1 and 'no tenond listens' in done.stderr


def test_events(tenond, tenon):
    environment = dict(tenon.environment(), TENON_SOCKET=str(tenond.socket))
    listener = subprocess.Popen([tenon.path, 'events', '--json'], env=environment, text=True,
                                stdout=subprocess.PIPE)
    # Until the listener listens, its events are lost: so there are many.
    number = 0
    os.set_blocking(listener.stdout.fileno(), False)
    while not (line := listener.stdout.readline()):
        number += 1
        tenond.create('vm%d' % number, '/nowhere')
    event = json.loads(line)
    assert event['type'] == 'vm.created' and event['vm'].startswith('vm')
    listener.kill()
    listener.wait()
    listener.stdout.close()


def test_tokens(tenond, command):
    token = command('token', 'create', 'ci', '--role', 'operator', '--vms', 'a,b', '--expires', '1h').strip()
    assert re.fullmatch(r'tenon_[A-Za-z0-9_-]{43}', token)
    me = tenond.good('GET', '/v1/me', headers={'Authorization': 'Bearer ' + token}).json
    assert me['role'] == 'operator' and me['vms'] == ['a', 'b'] and 'expires_at' in me
    assert re.search(r'^ci +operator +20\S+ +a,b$', command('token', 'list'), re.M)
    assert '--expires is a time' in command('token', 'create', 'x', '--expires', '5', status=2)
    assert 'expected one of' in command('token', 'create', 'x', '--role', 'king', status=2)
    command('token', 'revoke', 'ci')
    assert tenond.call('GET', '/v1/me', headers={'Authorization': 'Bearer ' + token}).status == 401
    assert 'no token' in command('token', 'revoke', 'ci', status=1)


def test_audit(tenond, command):
    command('token', 'create', 'ci')
    assert re.search(r'uid:\d+ +201 +createToken ci', command('audit', 'list'))
    assert command('audit', 'verify', '--state', tenond.state) == '1 entries, as they were written\n'
    path = tenond.state / 'audit.log'
    path.write_bytes(path.read_bytes().replace(b'createToken', b'createTokem'))
    assert 'audit log: line 1 was changed' in command('audit', 'verify', '--state', tenond.state, status=1)


@pytest.mark.soak
def test_many(tenond, tenon):
    """20 VMs outlive their daemon, and 1,000 cycles leave nothing."""
    guest = tenon.guest('halt', HALT)
    names = ['vm%02d' % i for i in range(20)]
    for name in names:
        tenond.create(name, guest)
        tenond.act(name, 'start', wait=60)
    tenond.kill()
    begin = time.monotonic()
    tenond.start()
    wait_for(lambda: [vm['state'] for vm in tenond.good('GET', '/v1/vms').json['vms']] == ['running'] * 20)
    took = time.monotonic() - begin
    print('20 VMs found in %.3f s, with the start of tenond' % took)
    for name in names:
        tenond.good('DELETE', '/v1/vms/%s?force=true' % name)
    folder = '/proc/%d/fd' % tenond.process.pid
    fds = len(os.listdir(folder))
    for _ in range(1000):
        tenond.good('POST', '/v1/vms?start=true', tenond.vm('cycle', guest))
        tenond.good('DELETE', '/v1/vms/cycle?force=true')
    wait_for(lambda: len(os.listdir(folder)) <= fds)
    assert os.listdir(tenond.state / 'vms') == []
    wait_for(lambda: [command for _, command in tenon.left() if 'tenond' not in command] == [])
    assert took < 1


def test_socket_activation(tenon):
    """A socket of systemd's: it is used, not removed, and not handed on."""
    it = Tenond(tenon)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(it.socket))
    listener.listen(64)
    it.process = subprocess.Popen(
        ['bash', '-c', 'exec 3<&%d; LISTEN_PID=$$ LISTEN_FDS=1 exec "$0" --state "$1" --socket /nowhere/s'
         % listener.fileno(), it.program, str(it.state)],
        env=tenon.environment(), cwd=tenon.directory, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
        stderr=open(tenon.directory / 'tenond.log', 'ab'), pass_fds=(listener.fileno(),))
    wait_for(it.answers, 20)
    it.create('one', tenon.guest('halt', HALT))
    pid = it.act('one', 'start', wait=20)['pid']
    with open('/proc/%d/environ' % pid, 'rb') as environment:
        assert b'LISTEN_FDS' not in environment.read()
    it.close()
    assert it.socket.exists()
    listener.close()
