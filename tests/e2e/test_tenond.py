"""
tenond: VMs that outlive it, and the REST API to them.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import calendar
import json
import os
import pathlib
import shutil
import signal
import sqlite3
import subprocess
import time

import pytest

from conftest import HALT, TRIPLE_FAULT, Qmp, debug_exit, serial_text, wait_for
from tenond import Tenond


def test_life(tenond, echo):
    """Created, started, paused, stopped, changed, deleted; each reply is as its schema says."""
    created = tenond.create('one', echo)
    assert created['state'] == 'stopped' and created['config']['memory'] == 16 << 20
    assert [vm['name'] for vm in tenond.good('GET', '/v1/vms').json['vms']] == ['one']
    running = tenond.act('one', 'start', wait=20)
    assert running['state'] == 'running' and running['engine'] == 'soft'
    assert tenond.good('GET', '/v1/host').json['running'] == 1
    tenond.act('one', 'pause')
    wait_for(lambda: tenond.get('one')['state'] == 'paused')
    tenond.act('one', 'resume')
    wait_for(lambda: tenond.get('one')['state'] == 'running')
    refused = tenond.call('DELETE', '/v1/vms/one')
    assert refused.status == 409 and 'runs: stop it first' in refused.sentence
    refused = tenond.call('PUT', '/v1/vms/one', tenond.vm('one', echo, cpus=2))
    assert refused.status == 409
    stopped = tenond.act('one', 'stop', wait=20)
    assert stopped['state'] == 'stopped' and stopped['last']['result'] == 'quit'
    stages = tenond.good('GET', '/v1/vms/one/timeline').json['stages']
    assert 'first guest instruction' in [stage['stage'] for stage in stages]
    assert tenond.good('PUT', '/v1/vms/one', tenond.vm('one', echo, cpus=2)).json['config']['cpus'] == 2
    assert tenond.good('DELETE', '/v1/vms/one').status == 204
    assert tenond.call('GET', '/v1/vms/one').status == 404
    assert os.listdir(tenond.state / 'vms') == []


def test_start_paused(tenond, echo):
    tenond.create('one', echo)
    assert tenond.act('one', 'start', paused='true', wait=20)['state'] == 'paused'
    time.sleep(0.1)
    assert tenond.good('GET', '/v1/vms/one/consoles/c0/log').body == b''
    tenond.act('one', 'resume')
    wait_for(lambda: tenond.good('GET', '/v1/vms/one/consoles/c0/log').body == b'hello\n')


def test_first_byte_of_the_console(tenond, tenon):
    """What a guest writes before anybody could look is not lost; nor what it writes last."""
    guest = tenon.guest('quick', serial_text('first and last') + debug_exit(0) + HALT)
    tenond.create('one', guest)
    for _ in range(5):
        tenond.act('one', 'start')
        wait_for(lambda: tenond.get('one')['state'] == 'stopped', 20)
    log = tenond.good('GET', '/v1/vms/one/consoles/c0/log').body
    assert log == b'first and last' * 5


@pytest.mark.parametrize('code, result, status', [
    (debug_exit(7) + HALT, 'exit', 1),
    (TRIPLE_FAULT, 'crash', 1),
], ids=['exit', 'triple fault'])
def test_how_it_ended(tenond, tenon, code, result, status):
    tenond.create('one', tenon.guest('guest', code), **{'on-reset': 'exit'})
    tenond.act('one', 'start')
    wait_for(lambda: tenond.get('one')['state'] == 'stopped', 20)
    last = tenond.get('one')['last']
    assert last['result'] == result and last['exit_status'] == status


def test_failed_start_says_what_the_command_says(tenond, tenon):
    tenond.create('one', '/nowhere/kernel')
    refused = tenond.call('POST', '/v1/vms/one/actions/start?wait=20')
    assert refused.status == 409
    done = tenon.run_beside('run', '--kernel', '/nowhere/kernel')
    assert done.stderr.strip() == 'tenon: ' + refused.sentence
    assert refused.sentence in tenond.good('GET', '/v1/vms/one/log').body.decode()


@pytest.mark.parametrize('body, sentence', [
    ({}, 'a VM needs a name'),
    ({'name': '..'}, "begins with '.'"),
    ({'name': 'a/b'}, 'name: '),
    ({'name': 'x', 'cpus': 0}, 'cpus: '),
    ({'name': 'x', 'memry': 1}, "did you mean 'memory'"),
    ({'name': 'x', 'kernel': 'relative'}, 'absolute path'),
    ({'name': 'x', 'disks': ['d.img']}, 'absolute path'),
    ({'name': 'x', 'kvm-fd': 5}, 'unknown key'),
    ([1], 'JSON object'),
])
def test_wrong_descriptions(tenond, body, sentence):
    refused = tenond.call('POST', '/v1/vms', body)
    assert refused.status == 400 and sentence in refused.sentence
    assert tenond.good('GET', '/v1/vms').json['vms'] == []


def test_outlived(tenond, echo):
    """kill -9 of tenond: the VMs run on, and the next one has them within a second."""
    names = ['a', 'b', 'c']
    for name in names:
        tenond.create(name, echo)
        tenond.act(name, 'start', wait=30)
    tenond.act('b', 'pause')
    before = {name: tenond.get(name)['pid'] for name in names}
    tenond.kill()
    tenond.start()
    begin = time.monotonic()
    wait_for(lambda: [tenond.get(name)['state'] for name in names] == ['running', 'paused', 'running'])
    assert time.monotonic() - begin < 10  # a second, on a machine that has one to spare
    assert {name: tenond.get(name)['pid'] for name in names} == before
    started = time.strptime(tenond.get('a')['started_at'][:19], '%Y-%m-%dT%H:%M:%S')
    assert abs(time.time() - calendar.timegm(started)) < 600
    stopped = tenond.act('a', 'stop', wait=20)
    assert stopped['last']['result'] == 'quit'


def test_ended_while_nobody_watched(tenond, echo):
    tenond.create('one', echo)
    pid = tenond.act('one', 'start', wait=20)['pid']
    tenond.kill()
    qmp = Qmp(tenond.state / 'vms/one/qmp.sock')  # as any client of the VM may
    qmp.raw({'execute': 'quit'})
    qmp.close()
    wait_for(lambda: not os.path.exists('/proc/%d' % pid) or
             pathlib.Path('/proc/%d/stat' % pid).read_text().split()[2] == 'Z', 20)
    tenond.start()
    vm = tenond.get('one')
    assert vm['state'] == 'stopped' and vm['last']['result'] == 'quit'


def test_keeper_that_the_store_does_not_know(tenond, echo):
    """tenond died between the start of a VM and the note of it: the socket tells."""
    tenond.create('one', echo)
    pid = tenond.act('one', 'start', wait=20)['pid']
    tenond.kill()
    base = sqlite3.connect(tenond.state / 'tenond.db')
    base.execute('UPDATE vm SET pid = 0, started = 0')
    base.commit()
    base.close()
    tenond.start()
    wait_for(lambda: tenond.get('one')['state'] == 'running')
    assert tenond.get('one')['pid'] == pid


def test_killed(tenond, tenon, echo):
    """kill -9 of the VM, then of its keeper: the state says what happened."""
    tenond.create('one', echo)
    tenond.act('one', 'start', wait=20)
    os.kill(tenon.find('tenon-vmm'), signal.SIGKILL)
    wait_for(lambda: tenond.get('one')['state'] == 'stopped')
    last = tenond.get('one')['last']
    assert last['result'] == 'failed' and 'killed by signal 9' in last['reason']
    os.kill(tenond.act('one', 'start', wait=20)['pid'], signal.SIGKILL)
    wait_for(lambda: tenond.get('one')['state'] == 'stopped')
    last = tenond.get('one')['last']
    assert last['result'] == 'killed' and 'signal 9' in last['reason']
    assert tenond.act('one', 'start', wait=20)['state'] == 'running'


def test_events(tenond, echo):
    events = tenond.events()
    tenond.create('one', echo)
    tenond.act('one', 'start')
    running = events.state('one', 'running')
    events.close()
    tenond.act('one', 'stop')
    again = tenond.events(headers={'Last-Event-ID': str(running['id'])})
    stopped = again.state('one', 'stopped')
    assert stopped['id'] > running['id']
    again.close()
    all_of_them = tenond.events('/v1/events?after=0')
    ids = []
    while not ids or ids[-1] != stopped['id']:
        ids.append(all_of_them.next()['id'])
    assert ids == list(range(1, stopped['id'] + 1))
    all_of_them.close()


def test_screenshot_and_keys(tenond, tenon):
    tenond.create('one', tenon.guest('halt', HALT), board='q35', vga=True, memory='32M')
    tenond.act('one', 'start', wait=20)
    assert tenond.good('GET', '/v1/vms/one/screenshot').body.startswith(b'\x89PNG')
    reply = tenond.raw('GET', '/v1/vms/one/screenshot?format=ppm')
    assert reply.status == 200 and reply.body.startswith(b'P6')
    assert tenond.good('POST', '/v1/vms/one/keys', {'keys': ['ctrl-alt-f1'], 'text': 'hi'}).status == 204
    refused = tenond.call('POST', '/v1/vms/one/keys', {'keys': ['a', 'nokey']})
    assert refused.status == 400 and "no key 'nokey'" in refused.sentence
    tenond.create('two', tenon.guest('halt', HALT))
    assert tenond.call('GET', '/v1/vms/two/screenshot').status == 409
    tenond.act('two', 'start', wait=20)
    assert 'screen' in tenond.call('GET', '/v1/vms/two/screenshot').sentence


def test_nothing_is_left(tenond, tenon):
    """Cycles of create, start, stop and delete leave no process, file, socket or descriptor."""
    guest = tenon.guest('halt', HALT)
    folder = '/proc/%d/fd' % tenond.process.pid
    fds = len(os.listdir(folder))  # with the connection that asked whether it answers
    cycles(tenond, guest, 20)
    wait_for(lambda: len(os.listdir(folder)) <= fds, what=lambda: [
        os.readlink(folder + '/' + fd) for fd in os.listdir(folder)])
    assert os.listdir(tenond.state / 'vms') == []
    wait_for(lambda: [command for _, command in tenond.tenon.left() if 'tenond' not in command] == [])


def cycles(tenond, guest, count):
    for i in range(count):
        tenond.good('POST', '/v1/vms?start=true', tenond.vm('cycle', guest))
        if i % 2:
            tenond.act('cycle', 'stop', wait=20)
            tenond.good('DELETE', '/v1/vms/cycle')
        else:
            tenond.good('DELETE', '/v1/vms/cycle?force=true')


def test_one_daemon_a_state(tenond):
    done = tenond.tenon.run_beside('--version')
    assert done.returncode == 0
    second = subprocess.run([tenond.program, '--socket', str(tenond.directory / 'other.sock'),
                             '--state', str(tenond.state)], capture_output=True, text=True, timeout=30)
    assert second.returncode == 4 and 'another tenond uses' in second.stderr


def test_installed(tenon, programs, echo):
    """tenond is in sbin, tenon in bin; what lies two folders up is no build."""
    for program, place in (('tenond', 'sbin'), ('tenon', 'bin'), ('tenon-vmm', 'bin')):
        folder = tenon.directory / 'usr' / place
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(programs / program, folder)
    (tenon.directory / 'web').mkdir()
    (tenon.directory / 'web/index.html').write_text('not a console')
    tenond = Tenond(tenon)
    tenond.program = str(tenon.directory / 'usr/sbin/tenond')
    tenond.start()
    try:
        tenond.create('one', echo)
        assert tenond.act('one', 'start', wait=20)['state'] == 'running'
        assert b'not a console' not in tenond.raw('GET', '/').body
    finally:
        tenond.close()


def test_document(tenond):
    """Each operation of openapi.json has a reply that the other tests check, and a role."""
    document = tenond.document()
    assert document['openapi'] == '3.1.0'
    for methods in document['paths'].values():
        for operation in methods.values():
            assert operation['x-tenon-role'] in ('viewer', 'operator', 'admin')
            assert 'default' in operation['responses']
    json.dumps(document)
