"""
tenon image serve: other programs' clients, TLS, and clients that misbehave.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import shutil
import socket
import struct
import subprocess

import pytest

from conftest import BUILD

OPTION_MAGIC = 0x49484156454F5054
REQUEST_MAGIC = 0x25609513


class Server:
    """The server at a unix socket of the test's folder, until it is told to end."""

    def __init__(self, images, *args, where=('--socket', 's.sock')):
        self.directory = images.directory
        self.ended = None
        self.process = subprocess.Popen([BUILD / 'src/cmd/tenon', 'image', 'serve', *where, *args],
                                        cwd=images.directory, stdout=subprocess.PIPE, text=True,
                                        stderr=subprocess.PIPE)
        self.said = self.process.stdout.readline()
        assert 'serving' in self.said, self.process.stderr.read()

    def uri(self, name='', scheme='nbd'):
        return '%s+unix:///%s?socket=%s' % (scheme, name, self.directory / 's.sock')

    def connect(self):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(30)
        # the path may be longer than an address: relative to an open folder it is not
        here = os.open(self.directory, os.O_PATH)
        client.connect('/proc/self/fd/%d/s.sock' % here)
        os.close(here)
        return client

    def end(self):
        """Status and what it said; again the same."""
        if not self.ended:
            if self.process.poll() is None:
                self.process.terminate()
            self.ended = self.process.wait(30), self.process.stderr.read()
            self.process.stdout.close()
            self.process.stderr.close()
        return self.ended


@pytest.fixture
def serve(images):
    for program in ('nbdinfo', 'nbdcopy', 'nbdkit'):
        if not shutil.which(program):
            pytest.skip('%s is missing (packages libnbd-bin, nbdkit)' % program)
    servers = []

    def start(*args, **options):
        servers.append(Server(images, *args, **options))
        return servers[-1]
    yield start
    for server in servers:
        status, errors = server.end()
        assert status == 0 and not errors, errors


def test_peers_copy_in_both_directions(images, serve):
    images.mixed('data.raw')
    images.qemu('convert', '-O', 'qcow2', 'data.raw', 'data.qcow2')
    images.qemu('create', '-f', 'qcow2', 'empty.qcow2', '8M')
    server = serve('data.qcow2', 'empty=empty.qcow2')
    listing = images.call('nbdinfo', '--list', '--json', server.uri()).stdout
    assert '"export-name": ""' in listing and '"export-name": "empty"' in listing
    images.call('nbdcopy', server.uri(), 'out.raw')
    images.call('cmp', 'out.raw', 'data.raw')
    images.call('nbdcopy', '--connections=4', 'data.raw', server.uri('empty'))
    images.call('qemu-img', 'compare', 'data.raw', server.uri('empty'))
    images.call('qemu-img', 'convert', '-n', '-f', 'raw', server.uri(), '-O', 'raw',
                server.uri('empty'))
    images.io(server.uri('empty'), 'write -P 5 1000 3000', 'write -z 64k 100k', 'discard 1M 1M',
              'write -f -P 6 2M 64k', 'flush', 'read -P 5 1000 3000', 'read -P 0 64k 100k',
              'read -P 6 2M 64k')
    assert server.end()[0] == 0
    assert not images.path('s.sock').exists()
    images.sound('empty.qcow2')
    images.io('empty.qcow2', 'read -P 5 1000 3000', 'read -P 0 64k 100k', 'read -P 6 2M 64k')


def test_block_status_agrees_with_map(images, serve):
    images.qemu('create', '-f', 'qcow2', 'base.qcow2', '16M')
    images.io('base.qcow2', 'write -P 1 1M 1M')
    images.qemu('create', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', 'top.qcow2')
    images.io('top.qcow2', 'write -P 2 4M 64k', 'write -z 1M 64k')
    server = serve('top.qcow2')
    said = images.call('nbdinfo', '--map', server.uri()).stdout.split('\n')
    stretches = [tuple(map(int, line.split()[:3])) for line in said if line]
    assert sum(length for _, length, _ in stretches) == 16 << 20

    def zero(place):
        return [bool(state & 2) for offset, length, state in stretches
                if offset <= place < offset + length] == [True]
    for place, expected in ((0, True), (1 << 20, True), ((1 << 20) + 65536, False),
                            (2 << 20, True), (4 << 20, False), ((4 << 20) + 65536, True)):
        assert zero(place) == expected, (place, stretches)


def test_read_only(images, serve):
    images.mixed('data.raw')
    server = serve('--read-only', '--format', 'raw', 'data.raw')
    assert 'is_read_only: true' in images.call('nbdinfo', server.uri()).stdout
    before = images.path('data.raw').read_bytes()
    other = serve('--read-only', '--format', 'raw', 'data.raw', where=('--listen', '0'))
    port = other.said.split()[-1]
    images.call('nbdcopy', 'nbd://127.0.0.1:' + port, 'out.raw')
    images.call('cmp', 'out.raw', 'data.raw')
    # A client that writes all the same.
    client = go(server.connect())
    client.sendall(request(1, 0, 512) + bytes(512) + request(4, 0, 512) + request(6, 0, 512))
    for _ in range(3):
        assert struct.unpack('>IIQ', exact(client, 16))[1] == 1
    assert images.path('data.raw').read_bytes() == before


def certificates(images):
    def openssl(*args):
        images.call('openssl', *args)
    if not shutil.which('openssl'):
        pytest.skip('openssl is missing')
    folder = images.path('pki')
    folder.mkdir()
    openssl('req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes',
            '-keyout', 'pki/ca-key.pem', '-out', 'pki/ca-cert.pem', '-subj', '/CN=Test CA',
            '-days', '30')
    for who in ('server', 'client'):
        images.path('ext').write_text('subjectAltName=DNS:localhost,IP:127.0.0.1\n')
        openssl('req', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-keyout',
                'pki/%s-key.pem' % who, '-out', 'csr.pem', '-subj', '/CN=localhost')
        openssl('x509', '-req', '-in', 'csr.pem', '-CA', 'pki/ca-cert.pem', '-CAkey',
                'pki/ca-key.pem', '-CAcreateserial', '-out', 'pki/%s-cert.pem' % who, '-days',
                '30', '-extfile', 'ext')
    return folder


def test_tls_with_certificates(images, serve):
    folder = certificates(images)
    images.mixed('data.raw')
    server = serve('--read-only', '--tls-certificates', 'pki', '--tls-verify', '--format', 'raw',
                   'data.raw', where=('--listen', '127.0.0.1:0'))
    port = server.said.split()[-1]
    uri = 'nbds://localhost:%s/?tls-certificates=%s' % (port, folder)
    assert 'with TLS' in images.call('nbdinfo', uri).stdout
    images.call('nbdcopy', uri, 'out.raw')
    images.call('cmp', 'out.raw', 'data.raw')
    images.call('qemu-img', 'convert', '--object', 'tls-creds-x509,id=t,dir=%s,endpoint=client'
                % folder, '--image-opts', '-O', 'raw', 'driver=nbd,host=localhost,port=%s,'
                'tls-creds=t' % port, 'out2.raw')
    images.call('cmp', 'out2.raw', 'data.raw')
    # In the clear, and without a certificate of one's own: nobody.
    assert images.call('nbdinfo', 'nbd://localhost:' + port, status=None).returncode
    for name in ('client-cert.pem', 'client-key.pem'):
        (folder / name).unlink()
    assert images.call('nbdcopy', uri, 'no.raw', status=None).returncode


def test_tls_with_keys(images, serve):
    images.mixed('data.raw')
    key = os.urandom(32).hex()
    images.path('keys.psk').write_text('# comment\nalice:%s\n' % key)
    images.path('wrong.psk').write_text('alice:%s\n' % os.urandom(32).hex())
    server = serve('--tls-psk', 'keys.psk', '--format', 'raw', 'data.raw')
    uri = server.uri(scheme='nbds').replace('nbds+unix:///', 'nbds+unix://alice@/')
    good = uri + '&tls-psk-file=%s' % images.path('keys.psk')
    images.call('nbdcopy', good, 'out.raw')
    images.call('cmp', 'out.raw', 'data.raw')
    # Through a second server that speaks to ours.
    images.call('nbdkit', '-U', '-', 'nbd', 'socket=%s' % images.path('s.sock'), 'tls=require',
                'tls-username=alice', 'tls-psk=%s' % images.path('keys.psk'), '--run',
                'nbdcopy "$uri" out2.raw')
    images.call('cmp', 'out2.raw', 'data.raw')
    bad = uri + '&tls-psk-file=%s' % images.path('wrong.psk')
    assert images.call('nbdinfo', bad, status=None, timeout=60).returncode


# --- clients of our own ---

def exact(client, length):
    got = b''
    while len(got) < length:
        piece = client.recv(length - len(got))
        assert piece, 'the server hung up'
        got += piece
    return got


def option(code, data=b''):
    return struct.pack('>QII', OPTION_MAGIC, code, len(data)) + data


def request(kind, offset, length, flags=0, cookie=0):
    return struct.pack('>IHHQQI', REQUEST_MAGIC, flags, kind, cookie, offset, length)


def go(client):
    """The shortest negotiation."""
    assert exact(client, 18)[:8] == b'NBDMAGIC'
    client.sendall(struct.pack('>I', 3) + option(1))
    exact(client, 10)
    return client


def text(words):
    return struct.pack('>I', len(words)) + words.encode()


def answers(client, *codes):
    """The answers to an option, until it is acknowledged: their data."""
    found = []
    while True:
        _, _, kind, length = struct.unpack('>QIII', exact(client, 20))
        assert kind in (1, *codes), hex(kind)
        if kind == 1:
            return found
        found.append(exact(client, length))


def contexts(client, code, queries):
    """{number: name} of an export's contexts that queries ask for."""
    client.sendall(option(code, text('') + struct.pack('>I', len(queries)) + b''.join(map(text, queries))))
    return {(struct.unpack('>I', each[:4])[0], each[4:].decode()) for each in answers(client, 4)}


def test_contexts(images, serve):
    """Several at once; lists and their namespaces; a bitmap that a crash left in use is not offered."""
    images.qemu('create', '-f', 'qcow2', 'a.qcow2', '64M')
    images.qemu('bitmap', '--add', 'a.qcow2', 'b0')
    images.qemu('bitmap', '--add', '-g', '4096', 'a.qcow2', 'b1')
    images.io('a.qcow2', 'write -P 2 10M 5000')
    everything = {'base:allocation', 'qemu:dirty-bitmap:b0', 'qemu:dirty-bitmap:b1'}
    server = serve('a.qcow2')
    client = server.connect()
    exact(client, 18)
    client.sendall(struct.pack('>I', 3) + option(8))
    answers(client)
    for queries, expected in (((), everything), (('base:',), {'base:allocation'}), (('other:', 'qemu'), set()),
                              (('qemu:',), everything - {'base:allocation'}), (('',), set()),
                              (('qemu:dirty-bitmap:b1', 'base:x'), {'qemu:dirty-bitmap:b1'})):
        assert {name for _, name in contexts(client, 9, queries)} == expected, queries
    assert contexts(client, 10, ('qemu:',)) == set()
    numbers = dict(contexts(client, 10, sorted(everything)))
    assert set(numbers.values()) == everything
    client.sendall(option(7, text('') + bytes(2)))
    answers(client, 3)
    client.sendall(request(7, 10 << 20, 1 << 20))
    said, last = {}, False
    while not last:
        magic, flags, kind, _, length = struct.unpack('>IHHQI', exact(client, 20))
        assert (magic, kind) == (0x668E33EF, 5)
        values = struct.unpack('>%dI' % (length // 4), exact(client, length))
        said[numbers[values[0]]], last = list(zip(values[1::2], values[2::2])), flags & 1
    assert said == {'base:allocation': [(65536, 0), (983040, 3)],
                    'qemu:dirty-bitmap:b0': [(65536, 1), (983040, 0)],
                    'qemu:dirty-bitmap:b1': [(8192, 1), (1040384, 0)]}
    client.close()
    child = subprocess.run(['pgrep', '-P', str(server.process.pid)], capture_output=True, text=True)
    images.io(server.uri(), 'write -P 2 20M 5000')
    os.kill(int(child.stdout.split()[0]), 9)
    assert server.end()[0]
    server.ended = 0, ''
    again = serve('--read-only', 'a.qcow2')
    assert 'dirty-bitmap' not in images.call('nbdinfo', '--json', again.uri()).stdout


def works(server):
    """A good client is served."""
    client = go(server.connect())
    client.sendall(request(0, 0, 512))
    assert struct.unpack('>IIQ', exact(client, 16))[:2] == (0x67446698, 0)
    exact(client, 512)
    client.close()


def hung_up(client):
    try:
        while client.recv(65536):
            pass
    except ConnectionError:
        pass
    return True


def test_hostile_clients_disturb_nobody(images, serve):
    images.mixed('data.raw')
    server = serve('--format', 'raw', 'data.raw')
    idle = [server.connect() for _ in range(10)]  # say nothing
    reader = go(server.connect())  # asks for much and reads nothing
    reader.sendall(b''.join(request(0, 0, 8 << 20, cookie=i) for i in range(64)))
    half = go(server.connect())  # announces data that does not come
    half.sendall(request(1, 0, 1 << 20) + bytes(1000))
    works(server)
    for greeting in (b'\xff' * 200, struct.pack('>I', 0xFFFF), struct.pack('>I', 3) + b'GARBAGE!' * 9):
        client = server.connect()
        client.sendall(greeting)
        assert hung_up(client)
    for bad in (b'\0' * 28, request(1, 0, 0xFFFFFFFF), request(1, 0, (32 << 20) + 1)):
        client = go(server.connect())
        client.sendall(bad)
        assert hung_up(client)
    for code in (1, 3, 5, 6, 7, 8, 9, 10, 11, 99):  # options whose lengths lie
        client = server.connect()
        exact(client, 18)
        client.sendall(struct.pack('>I', 3) + option(code, b'\xff\xff\xff\xf0' + b'x' * 9)
                       + option(code, b'\0\0\0\1') + option(7, b'\0' * 20000) + option(2))
        assert hung_up(client)
    works(server)
    client = go(server.connect())  # errors, to the letter
    size = images.path('data.raw').stat().st_size
    for bad, error in ((request(0, size, 1), 22), (request(0, 1 << 63, 1), 22),
                       (request(4, size - 1, 2), 28), (request(5, 0, 512), 22),
                       (request(99, 0, 0), 22), (request(0, 0, 512, flags=0x8000), 22),
                       (request(7, 0, 512), 22), (request(0, 0, (32 << 20) + 1), 22)):
        client.sendall(bad)
        assert struct.unpack('>IIQ', exact(client, 16))[1] == error, bad
    half.close()
    reader.close()
    for client in idle:
        client.close()
    works(server)


def test_full_house_waits(images, serve):
    images.mixed('data.raw')
    server = serve('--clients', '2', '--format', 'raw', 'data.raw')
    guests = [go(server.connect()) for _ in range(2)]
    third = server.connect()
    third.settimeout(0.3)
    with pytest.raises(TimeoutError):
        third.recv(18)
    guests[0].close()
    third.settimeout(30)
    go(third)
    third.close()
    guests[1].close()


def test_what_is_refused(images):
    images.qemu('create', '-f', 'raw', 'a.raw', '1M')
    for args, words in (((), 'what is to be served'), (('a.raw',), 'where to listen'),
                        (('--socket', 'x', '--listen', '1', 'a.raw'), 'where to listen'),
                        (('--socket', 'x', 'a.raw', 'a.raw'), 'have no name'),
                        (('--socket', 'x', 'b=a.raw', 'b=a.raw'), "are named 'b'"),
                        (('--socket', 'x', 'none.raw'), 'does not exist'),
                        (('--listen', 'nowhere:1:2', 'a.raw'), 'no place to listen'),
                        (('--socket', 'x', '--tls-psk', 'none', 'a.raw'), "cannot open 'none'"),
                        (('--socket', 'x', '--tls-certificates', '.', 'a.raw'), 'TLS'),
                        (('--socket', 'x', '--clients', 'many', 'a.raw'), 'number')):
        done = images.tenon('serve', *args, status=None, timeout=30)
        assert done.returncode and words in done.stderr, (args, done.stderr)
        assert not images.path('x').exists()


def test_two_writers_are_refused(images, serve):
    images.qemu('create', '-f', 'raw', 'a.raw', '1M')
    serve('--format', 'raw', 'a.raw')
    done = images.tenon('serve', '--socket', 'b.sock', '--format', 'raw', 'a.raw', status=4)
    assert 'a.raw' in done.stderr


def test_killed_server_leaves_flushed_data(images):
    images.qemu('create', '-f', 'qcow2', 'a.qcow2', '64M')
    server = Server(images, 'a.qcow2')
    images.io(server.uri(), 'write -P 3 0 1M', 'flush')
    child = subprocess.run(['pgrep', '-P', str(server.process.pid)], capture_output=True, text=True)
    os.kill(int(child.stdout.split()[0]), 9)
    status, errors = server.end()
    assert status and 'ended by signal 9' in errors
    images.io('a.qcow2', 'read -P 3 0 1M')
    assert images.qemu('check', 'a.qcow2', status=None).returncode in (0, 3)
