"""
A tenond of a test, and a client of its API that checks every reply against openapi.json.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import http.client
import json
import signal
import socket
import subprocess

import jsonschema
import pytest

from conftest import wait_for


class Connection(http.client.HTTPConnection):
    """HTTP over a unix socket."""

    def __init__(self, path, timeout=30):
        super().__init__('localhost', timeout=timeout)
        self.path = str(path)

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)


class Reply:
    def __init__(self, response):
        self.status = response.status
        self.type = (response.getheader('Content-Type') or '').split(';')[0]
        self.headers = response.headers
        self.body = response.read()

    @property
    def json(self):
        return json.loads(self.body)

    @property
    def sentence(self):
        return self.json['detail']


class Events:
    """The event stream."""

    def __init__(self, connection):
        self.connection = connection
        self.response = connection.getresponse()
        assert self.response.status == 200

    def next(self):
        while True:
            line = self.response.readline()
            assert line, 'the stream has ended'
            if line.startswith(b'data: '):
                return json.loads(line[6:])

    def state(self, vm, state):
        """Waits until a VM is in a state."""
        while True:
            event = self.next()
            if event['type'] == 'vm.state' and event['vm'] == vm and event['data']['state'] == state:
                return event

    def close(self):
        self.connection.close()


class WebSocket:
    """A small client, over a connection that is not open yet."""

    def __init__(self, connection, path, headers=None):
        connection.connect()
        self.connection = connection
        lines = ['GET %s HTTP/1.1' % path, 'Host: localhost', 'Upgrade: websocket', 'Connection: Upgrade',
                 'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==', 'Sec-WebSocket-Version: 13']
        lines += ['%s: %s' % pair for pair in (headers or {}).items()]
        connection.sock.sendall(('\r\n'.join(lines) + '\r\n\r\n').encode())
        self.file = connection.sock.makefile('rb')
        self.status = int(self.file.readline().split()[1])
        self.headers = http.client.parse_headers(self.file)
        self.seen = b''
        self.pongs = []

    def send(self, data, opcode=2):
        """One frame; RFC 6455 wants those of clients masked."""
        mask = b'abcd'
        assert len(data) < 126
        head = bytes([0x80 | opcode, 0x80 | len(data)]) + mask
        self.connection.sock.sendall(head + bytes(b ^ mask[i % 4] for i, b in enumerate(data)))

    def frame(self):
        """(opcode, payload); opcode None: the connection has ended."""
        head = self.file.read(2)
        if len(head) < 2:
            return None, b''
        size = head[1] & 0x7F
        if size >= 126:
            size = int.from_bytes(self.file.read(2 if size == 126 else 8), 'big')
        return head[0] & 0x0F, self.file.read(size)

    def read_until(self, text):
        while text not in self.seen:
            opcode, data = self.frame()
            assert opcode in (2, 10), (opcode, self.seen)
            if opcode == 10:
                self.pongs.append(data)
            else:
                self.seen += data

    def await_end(self):
        while self.frame()[0] not in (8, None):
            pass

    def close(self):
        self.file.close()
        self.connection.close()


class Tenond:
    """The daemon. Its VMs outlive it, so `close` ends them by their own sockets."""

    def __init__(self, tenon):
        self.tenon = tenon
        self.program = str(tenon.path) + 'd'
        self.directory = tenon.directory
        self.socket = self.directory / 'tenond.sock'
        self.state = self.directory / 'state'
        self.openapi = None
        self.process = None
        self.options = ()

    def start(self, *options):
        self.options = options or self.options
        self.process = subprocess.Popen(
            [self.program, '--socket', str(self.socket), '--state', str(self.state), *self.options],
            env=self.tenon.environment(), cwd=self.directory, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=open(self.directory / 'tenond.log', 'ab'))
        wait_for(self.answers, 20, lambda: 'tenond: ' + self.log())
        return self

    def log(self):
        return (self.directory / 'tenond.log').read_text(errors='replace')

    def answers(self):
        if self.process.poll() is not None:
            pytest.fail('tenond ended: ' + self.log())
        try:
            return self.raw('GET', '/v1/host').status == 200
        except (FileNotFoundError, ConnectionRefusedError):
            return False

    def kill(self):
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process.stdout.close()

    def stop(self):
        self.process.terminate()
        assert self.process.wait(20) == 0, self.log()
        self.process.stdout.close()
        assert 'Sanitizer' not in self.log(), self.log()

    def connection(self):
        return Connection(self.socket)

    def raw(self, method, path, body=None, headers=None, connection=None):
        connection = connection or self.connection()
        if isinstance(body, (dict, list)):
            body = json.dumps(body)
        try:
            connection.request(method, path, body, headers or {}, encode_chunked='Transfer-Encoding' in (headers or {}))
        except (BrokenPipeError, ConnectionResetError):
            pass  # refused before all of it was sent: the answer is there
        reply = Reply(connection.getresponse())
        connection.close()
        return reply

    def call(self, method, path, body=None, **options):
        """A call whose reply must be as openapi.json says."""
        reply = self.raw(method, path, body, **options)
        self.check(method, path.partition('?')[0], reply)
        return reply

    def good(self, method, path, body=None, **options):
        reply = self.call(method, path, body, **options)
        assert reply.status < 300, (reply.status, reply.body)
        return reply

    def document(self):
        if not self.openapi:
            self.openapi = self.raw('GET', '/v1/openapi.json').json
        return self.openapi

    def operation(self, method, path):
        """The operation that a path belongs to; None: there is none."""
        words = path.strip('/').split('/')
        for pattern, methods in self.document()['paths'].items():
            parts = pattern.strip('/').split('/')
            if len(parts) == len(words) and all(part == word or part[0] == '{'
                                                for part, word in zip(parts, words)):
                return methods.get(method.lower())
        return None

    def check(self, method, path, reply):
        operation = self.operation(method, path)
        responses = operation['responses'] if operation else {}
        response = responses.get(str(reply.status))
        if response is None:
            assert reply.status >= 400, 'status %d is not documented' % reply.status
            assert reply.type == 'application/problem+json', reply.type
            schema = {'$ref': '#/components/schemas/Problem'}
            assert reply.json['status'] == reply.status
        elif 'content' not in response:
            assert reply.body == b''
            return
        else:
            assert reply.type in response['content'], reply.type
            if reply.type != 'application/json':
                return
            schema = response['content'][reply.type]['schema']
        resolver = jsonschema.RefResolver('', self.document())
        jsonschema.Draft202012Validator(schema, resolver=resolver).validate(reply.json)

    # ---- shorthands ----

    def vm(self, name, kernel, **more):
        """The description of a tiny VM."""
        return {'name': name, 'kernel': str(kernel), 'memory': '16M', 'board': 'micro',
                'accel': 'soft', 'debug-exit': True, **more}

    def create(self, name, kernel, **more):
        return self.good('POST', '/v1/vms', self.vm(name, kernel, **more)).json

    def act(self, name, action, **query):
        text = '&'.join('%s=%s' % pair for pair in query.items())
        return self.good('POST', '/v1/vms/%s/actions/%s?%s' % (name, action, text)).json

    def get(self, name):
        return self.good('GET', '/v1/vms/' + name).json

    def token(self, name, role, **more):
        """Headers with a new token."""
        made = self.good('POST', '/v1/tokens', {'name': name, 'role': role, **more}).json
        return {'Authorization': 'Bearer ' + made['token']}

    def events(self, path='/v1/events', headers=None):
        connection = self.connection()
        connection.request('GET', path, headers=headers or {})
        return Events(connection)

    def close(self):
        """Ends the VMs, then the daemon."""
        if not self.process or self.process.poll() is not None:
            return
        for vm in self.raw('GET', '/v1/vms').json['vms']:
            self.raw('DELETE', '/v1/vms/%s?force=true' % vm['name'])
        self.stop()
