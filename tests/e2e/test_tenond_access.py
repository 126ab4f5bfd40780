"""
tenond: who may do what, what strangers and hostile clients get, consoles, and the audit log.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import http.client
import json
import os
import pathlib
import re
import socket
import ssl
import subprocess
import tempfile
import time

import pytest

from conftest import ECHO, HALT, NOBODY, serial_text, wait_for
from tenond import Tenond, WebSocket


@pytest.fixture
def tcp(tenon):
    """With a TCP port."""
    it = Tenond(tenon).start('--listen', '0', '--host', 'box.example')
    it.port = int(it.process.stdout.readline().split()[-1])
    yield it
    it.close()


def over_tcp(tenond, method, path, headers=None, body=None, host=None):
    connection = http.client.HTTPConnection('127.0.0.1', tenond.port, timeout=20)
    headers = dict(headers or {}, Host=host or '127.0.0.1:%d' % tenond.port)
    return tenond.raw(method, path, body, headers, connection)


def audit(tenond):
    return tenond.good('GET', '/v1/audit').json['entries']


# ---- roles ----

def test_roles(tenond, echo):
    """Each operation of openapi.json refuses the role below the one that it names."""
    tenond.create('one', echo)
    roles = {role: tenond.token(role, role) for role in ('viewer', 'operator', 'admin')}
    below = {'operator': 'viewer', 'admin': 'operator'}
    refused = 0
    for pattern, methods in tenond.document()['paths'].items():
        path = pattern.format(vm='one', action='start', console='c0', token='viewer', image='x')
        for method, operation in methods.items():
            weaker = below.get(operation['x-tenon-role'])
            if weaker:
                reply = tenond.call(method.upper(), path, {}, headers=roles[weaker])
                assert reply.status == 403, operation['operationId']
                assert 'this needs' in reply.sentence
                refused += 1
    assert refused >= 8
    assert [entry['status'] for entry in audit(tenond)].count(403) == refused
    assert tenond.good('POST', '/v1/vms/one/actions/start', headers=roles['operator']).status == 202
    assert tenond.good('GET', '/v1/me', headers=roles['viewer']).json == {
        'name': 'token:viewer', 'role': 'viewer'}


def test_scope(tenond, tenon):
    """A token for one VM: the others are not there."""
    guest = tenon.guest('halt', HALT)
    for name in ('mine', 'other'):
        tenond.create(name, guest)
    mine = tenond.token('mine', 'admin', vms=['mine', 'new'])
    names = [vm['name'] for vm in tenond.good('GET', '/v1/vms', headers=mine).json['vms']]
    assert names == ['mine']
    assert tenond.call('GET', '/v1/vms/other', headers=mine).status == 404
    assert tenond.call('DELETE', '/v1/vms/other', headers=mine).status == 404
    assert tenond.call('POST', '/v1/vms', tenond.vm('third', guest), headers=mine).status == 403
    assert tenond.call('POST', '/v1/vms', tenond.vm('new', guest), headers=mine).status == 201
    wider = {'name': 'wider', 'role': 'viewer'}
    assert tenond.call('POST', '/v1/tokens', wider, headers=mine).status == 403
    assert tenond.call('POST', '/v1/tokens', dict(wider, vms=['other']), headers=mine).status == 403
    assert tenond.call('GET', '/v1/audit', headers=mine).status == 403
    events = tenond.events('/v1/events?after=0', mine)
    assert events.next()['vm'] == 'mine' and events.next()['vm'] == 'new'
    events.close()


def test_tokens_end(tenond):
    short = tenond.token('short', 'viewer', expires_in=3)
    streams = [tenond.events(headers=short)]
    long = tenond.token('long', 'viewer')
    assert tenond.call('POST', '/v1/tokens', {'name': 'long', 'role': 'viewer'}).status == 409
    listed = tenond.good('GET', '/v1/tokens').json['tokens']
    assert [token['name'] for token in listed] == ['long', 'short'] and 'token' not in listed[0]
    assert long['Authorization'][7:].encode() not in (tenond.state / 'tenond.db').read_bytes()
    streams.append(tenond.events(headers=long))
    assert tenond.call('GET', '/v1/vms', headers=short).status in (200, 401)
    wait_for(lambda: tenond.call('GET', '/v1/vms', headers=short).status == 401)
    assert 'has expired' in tenond.call('GET', '/v1/vms', headers=short).sentence
    assert audit(tenond)[-1]['who'] == 'token:short'
    assert tenond.call('GET', '/v1/vms', headers=long).status == 200
    begin = time.monotonic()
    tenond.good('DELETE', '/v1/tokens/long')
    assert tenond.call('GET', '/v1/vms', headers=long).status == 401
    for stream in streams:
        while stream.response.readline():
            pass
        stream.close()
    assert time.monotonic() - begin < 5  # 0.2 s, on a machine that has it
    assert tenond.call('DELETE', '/v1/tokens/long').status == 404


def test_revocation_ends_what_is_open(tenond, echo):
    """Revoking a token is what closes its consoles and streams: nothing waits for a clock."""
    tenond.create('one', echo)
    tenond.act('one', 'start', wait=20)
    headers = tenond.token('lost', 'operator')
    kept = tenond.events(headers=tenond.token('kept', 'viewer'))
    path = '/v1/vms/one/consoles/c0'
    websocket = WebSocket(tenond.connection(), path, headers)
    websocket.read_until(b'hello\n')
    stream = tenond.connection()
    stream.request('GET', path, headers=headers)
    output = stream.getresponse()
    assert output.read(6) == b'hello\n'
    events = tenond.events(headers=headers)
    ticket = tenond.good('POST', path + '/tickets', headers=headers).json['path']
    begin = time.monotonic()
    tenond.good('DELETE', '/v1/tokens/lost')
    assert tenond.call('GET', '/v1/me', headers=headers).status == 401
    denied = time.monotonic() - begin
    websocket.await_end()
    assert output.read() == b'' and not [line for line in events.response if line.startswith(b'data:')]
    closed = time.monotonic() - begin
    assert WebSocket(tenond.connection(), ticket).status == 401
    print('denied after %.1f ms, all closed after %.1f ms' % (denied * 1000, closed * 1000))
    assert closed < 5  # 0.2 s, on a machine that has it: no timer of ours is as short
    tenond.act('one', 'pause')
    kept.state('one', 'paused')  # others are not disturbed
    for it in (websocket, stream, events, kept):
        it.close()


def test_tickets_of_a_token_that_expires(tenond, echo):
    """A ticket gives nothing that its token has no more."""
    tenond.create('one', echo)
    tenond.act('one', 'start', wait=20)
    headers = tenond.token('short', 'viewer', expires_in=2)
    made = tenond.call('POST', '/v1/vms/one/consoles/c0/tickets', headers=headers)
    if made.status == 401:
        pytest.skip('this machine took two seconds for a call')
    wait_for(lambda: tenond.call('GET', '/v1/me', headers=headers).status == 401)
    assert tenond.raw('GET', made.json['path']).status == 401


def test_peers(tenon):
    """Another user at the unix socket is nobody without a token."""
    if os.geteuid():
        pytest.skip('needs root, to become another user')
    folder = pathlib.Path(tempfile.mkdtemp(prefix='tenon-e2e-'))
    folder.chmod(0o755)
    tenond = Tenond(tenon)
    tenond.socket = folder / 'sock'
    tenond.start()
    os.chmod(tenond.socket, 0o666)
    token = tenond.token('guest', 'viewer')

    def status(headers):
        done = subprocess.run(
            ['setpriv', '--reuid=%d' % NOBODY, '--regid=%d' % NOBODY, '--clear-groups', '/usr/bin/python3', '-c',
             'import http.client, json, socket, sys\n'
             'c = http.client.HTTPConnection("localhost")\n'
             'c.sock = socket.socket(socket.AF_UNIX)\n'
             'c.sock.connect(sys.argv[1])\n'
             'c.request("GET", "/v1/vms", headers=json.loads(sys.argv[2]))\n'
             'print(c.getresponse().status)', tenond.socket, json.dumps(headers)],
            cwd='/', capture_output=True, text=True, timeout=60)
        return done.stdout.strip()
    assert status({}) == '401'
    last = audit(tenond)[-1]
    assert last['who'] == 'nobody' and 'uid %d ' % NOBODY in last['from'] and last['status'] == 401
    assert status(token) == '200'
    tenond.close()
    folder.rmdir()


# ---- names ----

@pytest.mark.parametrize('host, origin, status', [
    (None, None, 200),
    ('localhost:PORT', None, 200),
    ('BOX.example', None, 200),
    ('evil.example', None, 421),
    ('localhost.evil.example', None, 421),
    ('127.0.0.1:PORT:1', None, 421),
    ('localhost:PORT', 'http://localhost:PORT', 200),
    ('localhost:PORT', 'https://localhost:PORT', 403),
    ('localhost:PORT', 'http://evil.example', 403),
    ('localhost:PORT', 'null', 403),
])
def test_host_and_origin(tcp, host, origin, status):
    headers = tcp.token('me', 'viewer')
    if origin:
        headers['Origin'] = origin.replace('PORT', str(tcp.port))
    host = host and host.replace('PORT', str(tcp.port))
    assert over_tcp(tcp, 'GET', '/v1/vms', headers, host=host).status == status
    if status != 200:
        assert audit(tcp)[-1]['status'] == status


def test_tcp_wants_a_token(tcp):
    for headers in ({}, {'Authorization': 'Bearer nonsense'}, {'Authorization': 'Basic cm9vdDo='}):
        reply = over_tcp(tcp, 'GET', '/v1/vms', headers)
        assert reply.status == 401 and reply.headers['WWW-Authenticate'] == 'Bearer'
        last = audit(tcp)[-1]
        assert last['who'] == 'nobody' and last['from'] == '127.0.0.1'


def test_open_address_wants_tls(tenon):
    done = subprocess.run([tenon.path + 'd', '--socket', str(tenon.directory / 's'), '--state',
                           str(tenon.directory / 'state'), '--listen', '0.0.0.0:0'],
                          capture_output=True, text=True, timeout=30)
    assert done.returncode == 2 and 'give --tls-cert' in done.stderr


def test_tls(tenon):
    subprocess.run(['openssl', 'req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes',
                    '-keyout', 'key.pem', '-out', 'cert.pem', '-days', '2', '-subj', '/CN=box',
                    '-addext', 'subjectAltName=DNS:localhost'], cwd=tenon.directory, check=True,
                   capture_output=True, timeout=60)
    it = Tenond(tenon).start('--listen', '0', '--tls-cert', 'cert.pem', '--tls-key', 'key.pem')
    port = int(it.process.stdout.readline().split()[-1])
    context = ssl.create_default_context(cafile=tenon.directory / 'cert.pem')
    it.create('one', tenon.guest('echo', serial_text('hello\n') + ECHO))
    it.act('one', 'start', wait=20)
    headers = it.token('me', 'operator')

    def connection():
        return http.client.HTTPSConnection('localhost', port, timeout=20, context=context)
    assert it.call('GET', '/v1/vms', headers=headers, connection=connection()).status == 200
    console = WebSocket(connection(), '/v1/vms/one/consoles/c0', headers)
    assert console.status == 101
    console.read_until(b'hello\n')
    console.send(b'abc')
    console.read_until(b'bcd')
    it.good('DELETE', '/v1/tokens/me')
    console.await_end()
    console.close()
    it.close()


# ---- hostile requests ----

@pytest.mark.parametrize('body, status, sentence', [
    (b'', 400, 'no JSON'),
    (b'{', 400, 'no JSON'),
    (b'{"name": "x", "name": "y"}', 400, 'uplicate'),
    (b'\xff\xfe', 400, 'no JSON'),
    (b'[' * 100000, 400, 'no JSON'),
    (b'{"name": "\\u0000"}', 400, 'no JSON'),
    (b' ' * (1 << 20) + b'{}', 413, 'larger than 1 MiB'),
], ids=['empty', 'half', 'twice', 'no text', 'deep', 'zero', 'large'])
def test_bodies(tenond, body, status, sentence):
    reply = tenond.call('POST', '/v1/vms', body)
    assert reply.status == status and sentence in reply.sentence
    assert (audit(tenond)[-1]['action'], audit(tenond)[-1]['status']) == ('createVm', status)


def test_body_without_a_length_is_bounded(tenond):
    def pieces():
        for _ in range(40):
            yield b' ' * 65536
    connection = tenond.connection()
    reply = tenond.raw('POST', '/v1/vms', pieces(), {'Transfer-Encoding': 'chunked'}, connection)
    assert reply.status == 413


@pytest.mark.parametrize('method, path, status', [
    ('GET', '/v1', 404),
    ('GET', '/v1/vms/%2e%2e', 404),
    ('GET', '/v1/vms/..', 404),
    ('GET', '/v1/vms/../../etc/passwd', 404),
    ('GET', '/v1/vms//', 404),
    ('GET', '/v1/vms/a%00b', 404),
    ('GET', '/v1/vms?limit=1', 400),
    ('DELETE', '/v1/vms', 405),
    ('BREW', '/v1/vms', 405),
    ('GET', '/v1/vms/one/consoles/..%2f..%2flog/log', 404),
    ('POST', '/v1/vms/one/actions/explode', 400),
    ('POST', '/v1/vms/one/actions/start?wait=-1', 400),
    ('POST', '/v1/vms/one/actions/start?wait=9999', 400),
])
def test_paths(tenond, tenon, method, path, status):
    tenond.create('one', tenon.guest('halt', HALT))
    reply = tenond.raw(method, path)
    assert reply.status == status and reply.json['status'] == status
    last = audit(tenond)[-1]
    if tenond.operation(method, path.partition('?')[0]) is None or method == 'POST':
        assert last['status'] == status and (method in last['action'] or last['target'] == 'one')
    assert tenond.get('one')['state'] == 'stopped'


def test_content_type(tenond):
    reply = tenond.call('POST', '/v1/vms', '{}', headers={'Content-Type': 'text/plain'})
    assert reply.status == 415


def exchange(tenond, data, timeout=20):
    """What comes back for raw bytes, until the server closes."""
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(timeout)
        client.connect(str(tenond.socket))
        client.sendall(data)
        answer = b''
        try:
            while True:
                piece = client.recv(65536)
                if not piece:
                    return answer
                answer += piece
        except ConnectionResetError:
            return answer


@pytest.mark.parametrize('data, status', [
    (b'GET /v1/vms HTTP/1.1\r\nBroken header\r\n\r\n', 400),
    (b'GET /v1/vms HTTP/1.1\r\n\r\n', 400),
    (b'GET /v1/vms HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n', 400),
    (b'GET /v1/vms HTTP/9.9\r\nHost: localhost\r\n\r\n', 505),
    (b'GET /' + b'a' * 100000 + b' HTTP/1.1\r\n\r\n', 414),
    (b'GET / HTTP/1.1\r\nHost: localhost\r\nA: ' + b'a' * 100000 + b'\r\n\r\n', 431),
], ids=['header', 'no host', 'length', 'version', 'long path', 'long header'])
def test_malformed(tenond, data, status):
    answer = exchange(tenond, data)
    assert re.match(rb'HTTP/1\.[01] %d ' % status, answer), answer[:200]
    assert tenond.good('GET', '/v1/vms').status == 200


def test_slow_clients(tenon):
    """A header a byte at a time, a body that never comes, a connection that says nothing."""
    tcp = Tenond(tenon).start('--timeout', '2')
    begin = time.monotonic()
    clients = []
    for first in (b'', b'GET /v1/vms HTTP/1.1\r\nHost: localhost\r\nA: ',
                  b'POST /v1/vms HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n\r\n{'):
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(tcp.socket))
        client.sendall(first)
        client.settimeout(20)
        clients.append(client)
    ended, answers = set(), [b''] * len(clients)
    while len(ended) < len(clients):
        assert time.monotonic() - begin < 30
        for i, client in enumerate(clients):
            if i in ended:
                continue
            try:
                if i:
                    client.sendall(b'x')
            except OSError:
                pass  # the answer is there
            try:
                client.settimeout(0.05)
                piece = client.recv(4096)
                answers[i] += piece
                if not piece:
                    ended.add(i)
            except socket.timeout:
                pass
        assert tcp.good('GET', '/v1/host').status == 200  # others are served meanwhile
    assert answers[0] == b'' and all(b'408 Request Timeout' in answer for answer in answers[1:])
    for client in clients:
        client.close()
    entries = audit(tcp)
    assert sorted((entry['target'], entry['status']) for entry in entries) == [('/v1/vms', 408)] * 2
    tcp.close()


def test_many_clients(tenond):
    """Connections that do nothing, more than there may be, do not keep others out for ever."""
    idle = []
    for _ in range(100):
        client = socket.socket(socket.AF_UNIX)
        client.connect(str(tenond.socket))
        idle.append(client)
    assert tenond.good('GET', '/v1/vms').status == 200
    for client in idle:
        client.close()


# ---- consoles ----

def test_console(tenond, echo):
    """Several viewers; operators type; what was there before is seen; a token may be a ticket."""
    tenond.create('one', echo)
    assert tenond.call('GET', '/v1/vms/one/consoles/c0').status == 409
    tenond.act('one', 'start', wait=20)
    viewer, operator = tenond.token('look', 'viewer'), tenond.token('type', 'operator')
    path = '/v1/vms/one/consoles/c0'
    first = WebSocket(tenond.connection(), path, operator)
    assert first.status == 101
    assert first.headers['Sec-WebSocket-Accept'] == 's3pPLMBiTxaQ9kYGzzhZRbK+xOo='
    first.read_until(b'hello\n')
    second = WebSocket(tenond.connection(), path, viewer)
    second.read_until(b'hello\n')
    second.send(b'x')  # may look only
    first.send(b'abc')
    for console in (first, second):
        console.read_until(b'hello\nbcd')
    assert tenond.good('POST', path + '/input', {'text': '123'}, headers=operator).status == 204
    second.read_until(b'bcd234')
    assert tenond.call('POST', path + '/input', {'text': '123'}, headers=viewer).status == 403
    first.send(b'ping!', opcode=9)
    ticket = tenond.good('POST', path + '/tickets', headers=viewer).json
    third = WebSocket(tenond.connection(), ticket['path'])
    third.read_until(b'234')
    assert WebSocket(tenond.connection(), ticket['path']).status == 401  # once
    other = tenond.good('POST', path + '/tickets', headers=viewer).json['ticket']
    assert tenond.raw('GET', '/v1/vms?ticket=' + other).status == 401  # for its console alone
    tenond.good('DELETE', '/v1/tokens/look')
    for console in (second, third):
        console.await_end()
    first.send(b'z')
    first.read_until(b'{')
    assert first.pongs == [b'ping!']
    tenond.act('one', 'stop', wait=20)
    first.await_end()
    opened = [entry for entry in audit(tenond) if entry['action'] == 'openConsole' and entry['status'] == 101]
    assert [entry['who'] for entry in opened] == ['token:type', 'token:look', 'token:look']
    assert opened[1]['detail'] == 'c0'


def test_console_as_a_stream(tenond, echo):
    tenond.create('one', echo)
    tenond.act('one', 'start', wait=20)
    connection = tenond.connection()
    connection.request('GET', '/v1/vms/one/consoles/c0')
    response = connection.getresponse()
    assert response.read(6) == b'hello\n'
    tenond.good('POST', '/v1/vms/one/consoles/c0/input', {'text': 'ab'})
    assert response.read(2) == b'bc'
    tenond.act('one', 'stop')
    assert response.read() == b''
    connection.close()


@pytest.mark.parametrize('data', [
    b'\xff' * 50,                                  # reserved bits, an unknown opcode
    b'\x82\x05hello',                              # not masked
    b'\x82\xff\x7f\xff\xff\xff\xff\xff\xff\xffabcdefgh',  # a message of 9 EiB
], ids=['nonsense', 'unmasked', 'huge'])
def test_broken_frames(tenond, echo, data):
    tenond.create('one', echo)
    tenond.act('one', 'start', wait=20)
    console = WebSocket(tenond.connection(), '/v1/vms/one/consoles/c0')
    console.connection.sock.sendall(data)
    console.await_end()
    console.close()
    assert tenond.get('one')['state'] == 'running'


# ---- audit ----

def test_audit(tenond, tenon):
    """Every change, by whom; one changed byte is found."""
    tenond.create('one', tenon.guest('halt', HALT))
    tenond.act('one', 'start', wait=20)
    tenond.call('DELETE', '/v1/vms/one')
    tenond.good('DELETE', '/v1/vms/one?force=true')
    entries = audit(tenond)
    assert [(entry['action'], entry['target'], entry['status']) for entry in entries] == [
        ('createVm', 'one', 201), ('runAction', 'one', 202), ('deleteVm', 'one', 409), ('deleteVm', 'one', 204)]
    assert entries[1]['detail'] == 'start'
    assert all(entry['who'] == 'uid:%d' % os.geteuid() for entry in entries)
    assert tenond.good('GET', '/v1/audit?after=3&limit=1').json['entries'] == entries[3:]
    assert tenond.good('GET', '/v1/audit/verify').json == {'intact': True, 'good': 4}
    path = tenond.state / 'audit.log'
    log = path.read_bytes()
    path.write_bytes(log.replace(b'"one"', b'"two"', 1))
    found = tenond.good('GET', '/v1/audit/verify').json
    assert not found['intact'] and found['good'] == 0 and 'line 1 was changed' in found['problem']
    path.write_bytes(b''.join(log.splitlines(True)[:-1]))
    assert 'there were 4' in tenond.good('GET', '/v1/audit/verify').json['problem']
    path.write_bytes(log)
    tenond.stop()
    tenond.start()
    tenond.good('POST', '/v1/tokens', {'name': 'a', 'role': 'viewer'})
    assert tenond.good('GET', '/v1/audit/verify').json == {'intact': True, 'good': 5}
    assert json.dumps(audit(tenond)).count('tenon_') == 0
