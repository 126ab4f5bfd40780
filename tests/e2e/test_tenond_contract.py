"""
tenond: curl drives every operation of openapi.json, and each reply is what its schema says.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import shutil
import subprocess

import pytest

from conftest import HALT, wait_for


class CurlReply:
    """What curl wrote: the last header block, and the body."""

    def __init__(self, done, folder):
        assert done.returncode == 0, done.stderr
        head = (folder / 'head').read_text().strip().split('\n\n')[-1].splitlines()
        self.status = int(head[0].split()[1])
        headers = {line.partition(':')[0].lower(): line.partition(':')[2].strip() for line in head[1:]}
        self.type = headers.get('content-type', '').split(';')[0]
        self.body = (folder / 'body').read_bytes() if (folder / 'body').exists() else b''

    @property
    def json(self):
        return json.loads(self.body)


class Curl:
    def __init__(self, tenond):
        self.tenond = tenond
        self.folder = tenond.directory / 'curl'
        self.folder.mkdir()
        self.driven = set()

    def words(self, method, path):
        return ['curl', '--silent', '--show-error', '--no-buffer', '--unix-socket', str(self.tenond.socket),
                '--request', method, 'http://localhost' + path]

    def note(self, method, path):
        operation = self.tenond.operation(method, path.partition('?')[0])
        assert operation, '%s %s is in no document' % (method, path)
        self.driven.add(operation['operationId'])

    def call(self, method, path, body=None, status=None):
        """One call; the reply is as the document says, whatever its status."""
        self.note(method, path)
        (self.folder / 'body').unlink(missing_ok=True)
        words = self.words(method, path) + ['--dump-header', str(self.folder / 'head'), '--output',
                                            str(self.folder / 'body')]
        if body is not None:
            words += ['--header', 'Content-Type: application/json', '--data-binary', json.dumps(body)]
        done = subprocess.run(words, capture_output=True, text=True, timeout=60)
        reply = CurlReply(done, self.folder)
        self.tenond.check(method, path.partition('?')[0], reply)
        assert reply.status < 300 if status is None else reply.status == status, (path, reply.status, reply.body)
        return reply

    def listen(self, path, first):
        """A reply without an end: until its first bytes are there."""
        self.note('GET', path)
        process = subprocess.Popen(self.words('GET', path), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        try:
            assert process.stdout.read(len(first)) == first
        finally:
            process.kill()
            process.communicate()


@pytest.fixture
def curl(tenond):
    if not shutil.which('curl'):
        pytest.skip('curl is missing (package curl)')
    return Curl(tenond)


def every_operation():
    """What is called, in this order, with a VM `one`: method, path, body."""
    return [
        ('GET', '/v1/openapi.json', None),
        ('GET', '/v1/host', None),
        ('GET', '/v1/me', None),
        ('POST', '/v1/images', {'name': 'disk', 'format': 'qcow2', 'size': 1 << 20}),
        ('GET', '/v1/images', None),
        ('GET', '/v1/images/disk', None),
        ('DELETE', '/v1/images/disk', None),
        ('GET', '/v1/vms', None),
        ('PUT', '/v1/vms/one', 'description'),
        ('POST', '/v1/vms/one/actions/start?wait=30', None),
        ('GET', '/v1/vms/one', None),
        ('GET', '/v1/vms/one/screenshot', None),
        ('POST', '/v1/vms/one/keys', {'text': 'hello'}),
        ('GET', '/v1/vms/one/log', None),
        ('GET', '/v1/vms/one/consoles/c0/log', None),
        ('POST', '/v1/vms/one/consoles/c0/input', {'text': 'a'}),
        ('POST', '/v1/vms/one/consoles/c0/tickets', None),
        ('POST', '/v1/vms/one/screen/tickets', None),
        ('GET', '/v1/metrics', None),
        ('POST', '/v1/vms/one/actions/stop?wait=30', None),
        ('GET', '/v1/vms/one/timeline', None),
        ('POST', '/v1/tokens', {'name': 'ci', 'role': 'viewer', 'vms': ['one'], 'expires_in': 60}),
        ('GET', '/v1/tokens', None),
        ('DELETE', '/v1/tokens/ci', None),
        ('GET', '/v1/audit?limit=5', None),
        ('GET', '/v1/audit/verify', None),
        ('DELETE', '/v1/vms/one', None),
    ]


def test_every_operation(curl, tenond, echo):
    one = tenond.vm('one', echo, board='q35', vga=True, memory='32M')
    curl.call('POST', '/v1/vms', one)
    for method, path, body in every_operation():
        curl.call(method, path, one if body == 'description' else body)
        if 'actions/start' in path:
            wait_for(lambda: tenond.raw('GET', '/v1/vms/one/consoles/c0/log').body == b'hello\n')
            curl.listen('/v1/vms/one/consoles/c0', b'hello\n')
            curl.listen('/v1/events', b': tenon\n\n')
            curl.call('GET', '/v1/vms/one/screen', status=400)  # a WebSocket, which curl does not speak
    known = {operation['operationId'] for methods in tenond.document()['paths'].values()
             for operation in methods.values()}
    assert curl.driven == known, known - curl.driven


def test_refusals(curl, tenond, tenon):
    """Every operation on something that is not there, and every body that is none, is a problem as documented."""
    tenond.create('one', tenon.guest('halt', HALT))
    for pattern, methods in tenond.document()['paths'].items():
        missing = pattern.format(vm='none', action='start', console='c9', token='none', image='none')
        for method, operation in methods.items():
            if '{' in pattern:
                curl.call(method.upper(), missing, {} if 'requestBody' in operation else None, status=404)
            elif 'requestBody' in operation:
                curl.call(method.upper(), pattern, 'no object', status=400)
