"""
tenon-slirp by its socket: a guest made of raw Ethernet frames.

The test speaks ARP, DHCP, UDP and TCP over the SOCK_SEQPACKET socket that a VMM would hold, with and
without checksum and segmentation offload, and looks at the process from outside: its port forwards,
its exit statuses, its sandbox, its end.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import contextlib
import hashlib
import http.server
import os
import pathlib
import random
import signal
import socket
import struct
import subprocess
import threading
import time

import pytest

MAC = bytes.fromhex('525400123456')
GATEWAY, DNS, GUEST = '10.0.2.2', '10.0.2.3', '10.0.2.15'
NEEDS_CSUM, GSO_TCPV4 = 1, 1
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16


def find_slirp():
    build = os.environ.get('TENON_BUILD') or pathlib.Path(__file__).parents[2] / 'build'
    path = os.environ.get('TENON_SLIRP') or pathlib.Path(build) / 'src/cmd/tenon-slirp'
    if not os.access(path, os.X_OK):
        pytest.fail('%s is missing: build first, or set TENON_BUILD' % path)
    return str(path)


def checksum(data):
    if len(data) % 2:
        data += b'\0'
    total = sum(struct.unpack('!%dH' % (len(data) // 2), data))
    while total >> 16:
        total = (total & 0xffff) + (total >> 16)
    return total ^ 0xffff


def ipv4(source, target, protocol, payload, ident=1):
    head = struct.pack('!BBHHHBBH4s4s', 0x45, 0, 20 + len(payload), ident, 0, 64, protocol, 0,
                       socket.inet_aton(source), socket.inet_aton(target))
    return head[:10] + struct.pack('!H', checksum(head)) + head[12:] + payload


def pseudo(source, target, protocol, length):
    return socket.inet_aton(source) + socket.inet_aton(target) + struct.pack('!BBH', 0, protocol, length)


def udp(source, target, source_port, target_port, payload):
    head = struct.pack('!HHHH', source_port, target_port, 8 + len(payload), 0)
    body = head + payload
    csum = checksum(pseudo(source, target, 17, len(body)) + body) or 0xffff
    return ipv4(source, target, 17, body[:6] + struct.pack('!H', csum) + payload)


class Slirp:
    """The process, and the guest's side of its socket."""

    def __init__(self, *options, wrapper=()):
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        status_read, status_write = os.pipe()
        for end in (ours, theirs):
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.socket = ours
        self.process = subprocess.Popen(
            [*wrapper, find_slirp(), '--fd', str(theirs.fileno()), '--status-fd', str(status_write),
             *options], pass_fds=(theirs.fileno(), status_write), stderr=subprocess.PIPE)
        theirs.close()
        os.close(status_write)
        with open(status_read, 'rb') as status:
            self.status = status.read().decode()
        self.gateway_mac = None
        self.kept = []

    def close(self):
        self.socket.close()
        return self.process.wait(5)

    def send(self, frame, header=bytes(12)):
        self.socket.sendall(header + frame)

    def receive(self, want, timeout=5):
        """The first frame that `want` makes something of."""
        for i, message in enumerate(self.kept):
            result = want(*message)
            if result:
                del self.kept[i]
                return result
        end = time.monotonic() + timeout
        while True:
            self.socket.settimeout(max(end - time.monotonic(), 0.01))
            data = self.socket.recv(70000)
            assert len(data) >= 26, 'a frame has a header'
            self.answer_arp(data[12:])
            result = want(data[:12], data[12:])
            if result:
                return result
            self.kept.append((data[:12], data[12:]))

    def answer_arp(self, frame):
        if frame[12:14] == b'\x08\x06' and frame[20:22] == b'\0\1' and \
                frame[38:42] == socket.inet_aton(GUEST):
            self.send(frame[6:12] + MAC + frame[12:20] + b'\0\2' + MAC + frame[38:42] + frame[22:32])

    def arp(self, address):
        self.send(b'\xff' * 6 + MAC + struct.pack('!HHHBBH', 0x806, 1, 0x800, 6, 4, 1) + MAC +
                  socket.inet_aton(GUEST) + bytes(6) + socket.inet_aton(address))

        def want(_, frame):
            if frame[12:14] == b'\x08\x06' and frame[20:22] == b'\0\2' and \
                    frame[28:32] == socket.inet_aton(address):
                return frame[22:28]
            return None
        return self.receive(want)

    def send_ip(self, packet, header=bytes(12)):
        if not self.gateway_mac:
            self.gateway_mac = self.arp(GATEWAY)
        self.send(self.gateway_mac + MAC + b'\x08\x00' + packet, header)

    def receive_udp(self, port, timeout=5):
        def want(_, frame):
            ip = frame[14:]
            if frame[12:14] != b'\x08\x00' or ip[9] != 17 or struct.unpack('!H', ip[22:24])[0] != port:
                return None
            assert checksum(ip[:20]) == 0
            return ip[28:struct.unpack('!H', ip[2:4])[0]], socket.inet_ntoa(ip[12:16])
        return self.receive(want, timeout)


class Tcp:
    """One connection of the guest. Offload: requests checksums and sends segments of up to 60 KiB."""

    def __init__(self, slirp, offload=False):
        self.slirp, self.offload = slirp, offload
        self.port = random.randrange(20000, 60000)
        self.peer, self.peer_port = None, None
        self.sequence, self.acked = random.randrange(1 << 32), 0
        self.largest = 0
        self.finished = False

    def segment(self, flags, payload=b'', options=b''):
        head = struct.pack('!HHIIBBHHH', self.port, self.peer_port, self.sequence, self.acked,
                           (20 + len(options)) // 4 << 4, flags, 65535, 0, 0) + options
        header = bytes(12)
        body = head + payload
        start = pseudo(GUEST, self.peer, 6, len(body))
        if self.offload:
            csum = checksum(start) ^ 0xffff
            gso, size = (GSO_TCPV4, 1460) if len(payload) > 1460 else (0, 0)
            header = struct.pack('<BBHHHHH', NEEDS_CSUM, gso, 34 + len(head), size, 34, 16, 0)
        else:
            csum = checksum(start + body)
        body = body[:16] + struct.pack('!H', csum) + body[18:]
        self.slirp.send_ip(ipv4(GUEST, self.peer, 6, body), header)
        self.sequence = (self.sequence + len(payload) + bool(flags & (SYN | FIN))) % (1 << 32)

    def receive(self, timeout=5):
        def want(header, frame):
            ip = frame[14:]
            if frame[12:14] != b'\x08\x00' or ip[9] != 6:
                return None
            tcp = ip[20:struct.unpack('!H', ip[2:4])[0]]
            if struct.unpack('!H', tcp[2:4])[0] != self.port:
                return None
            self.check(header, frame, ip, tcp)
            source = struct.unpack('!H', tcp[:2])[0]
            sequence, acked = struct.unpack('!II', tcp[4:12])
            return sequence, acked, tcp[13], tcp[(tcp[12] >> 4) * 4:], source, ip[12:16]
        return self.slirp.receive(want, timeout)

    def check(self, header, frame, ip, tcp):
        flags, gso, _, size, start, offset, _ = struct.unpack('<BBHHHHH', header)
        assert checksum(ip[:20]) == 0
        data = pseudo(socket.inet_ntoa(ip[12:16]), socket.inet_ntoa(ip[16:20]), 6, len(tcp))
        if flags & NEEDS_CSUM:
            assert (start, offset) == (34, 16)
            assert struct.unpack('!H', tcp[16:18])[0] == checksum(data) ^ 0xffff
        else:
            assert checksum(data + tcp) == 0
        if len(frame) > 1514:
            assert gso == GSO_TCPV4 and size == 1500 - 40 and flags & NEEDS_CSUM
        self.largest = max(self.largest, len(frame))

    def connect(self, address, port):
        self.peer, self.peer_port = address, port
        self.segment(SYN, options=struct.pack('!BBH', 2, 4, 1460))
        sequence, acked, flags, _, _, _ = self.receive()
        assert flags & RST or acked == self.sequence
        if flags & RST:
            raise ConnectionRefusedError
        assert flags & (SYN | ACK) == SYN | ACK
        self.acked = (sequence + 1) % (1 << 32)
        self.segment(ACK)
        return self

    def accept(self, port):
        """Waits for a SYN to one of the guest's ports."""
        self.port = port
        sequence, _, flags, _, source_port, source = self.receive()
        assert flags & SYN
        self.peer, self.peer_port = socket.inet_ntoa(source), source_port
        self.acked = (sequence + 1) % (1 << 32)
        self.segment(SYN | ACK, options=struct.pack('!BBH', 2, 4, 1460))
        return self

    def write(self, data, step):
        """Sends all, each piece when the one before was acknowledged."""
        while data:
            self.segment(ACK | PSH, data[:step])
            data = data[step:]
            while True:
                sequence, acked, _, payload, _, _ = self.receive()
                assert not payload
                if acked == self.sequence:
                    break

    def read(self, length=None):
        """Until the peer's FIN, or so many bytes."""
        result = b''
        while not self.finished and (length is None or len(result) < length):
            sequence, _, flags, payload, _, _ = self.receive()
            assert not flags & RST
            if sequence != self.acked:
                self.segment(ACK)
                continue
            result += payload
            self.acked = (self.acked + len(payload) + bool(flags & FIN)) % (1 << 32)
            self.finished = bool(flags & FIN)
            if payload or flags & FIN:
                self.segment(ACK)
        return result


@contextlib.contextmanager
def running(*options, **more):
    slirp = Slirp(*options, **more)
    try:
        assert slirp.status == 'ready\n', slirp.process.stderr.read()
        yield slirp
    finally:
        slirp.socket.close()
        if slirp.process.poll() is None:
            try:
                slirp.process.wait(5)
            except subprocess.TimeoutExpired:
                slirp.process.kill()
                slirp.process.wait()
                raise
        slirp.process.stderr.close()


@contextlib.contextmanager
def http_server(content):
    class Handler(http.server.BaseHTTPRequestHandler):
        received = []

        def do_GET(self):
            self.send_response(200)
            self.send_header('Content-Length', str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_PUT(self):
            self.received.append(self.rfile.read(int(self.headers['Content-Length'])))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_):
            pass

    server = http.server.ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server.server_address[1], Handler.received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


def dhcp(slirp, kind, *options):
    packet = struct.pack('!BBBBIHH4s4s4s4s16s64s128sI', 1, 1, 6, 0, 0x1234, 0, 0, bytes(4), bytes(4),
                         bytes(4), bytes(4), MAC, b'', b'', 0x63825363)
    packet += bytes([53, 1, kind]) + b''.join(options) + b'\xff'
    slirp.send(b'\xff' * 6 + MAC + b'\x08\x00' +
               udp('0.0.0.0', '255.255.255.255', 68, 67, packet))
    reply, source = slirp.receive_udp(68)
    assert source == GATEWAY and reply[4:8] == b'\0\0\x12\x34'
    found, at = {}, 240
    while reply[at] != 255:
        if reply[at]:
            found[reply[at]] = reply[at + 2:at + 2 + reply[at + 1]]
            at += 1 + reply[at + 1]
        at += 1
    return socket.inet_ntoa(reply[16:20]), found


def test_dhcp():
    with running('--hostname', 'joiner') as slirp:
        address, options = dhcp(slirp, 1)
        assert address == GUEST and options[53] == b'\x02'
        address, options = dhcp(slirp, 3, b'\x32\x04' + socket.inet_aton(GUEST))
        assert address == GUEST and options[53] == b'\x05'
        assert options[1] == socket.inet_aton('255.255.255.0')
        assert options[3] == socket.inet_aton(GATEWAY)
        assert options[6] == socket.inet_aton(DNS)
        assert options[12] == b'joiner'


def test_other_network():
    with running('--network', '192.168.77.0/24', '--dhcp-start', '192.168.77.100') as slirp:
        packet = struct.pack('!BBBBI228sI', 1, 1, 6, 0, 1, bytes(20) + MAC + bytes(202), 0x63825363)
        slirp.send(b'\xff' * 6 + MAC + b'\x08\x00' +
                   udp('0.0.0.0', '255.255.255.255', 68, 67, packet + b'\x35\x01\x01\xff'))
        reply, source = slirp.receive_udp(68)
        assert source == '192.168.77.2' and socket.inet_ntoa(reply[16:20]) == '192.168.77.100'


def test_arp():
    with running() as slirp:
        assert slirp.arp(GATEWAY) == slirp.arp(GATEWAY)
        assert slirp.arp(DNS)


@pytest.mark.parametrize('offload', [False, True])
def test_http_from_host(offload):
    content = random.Random(1).randbytes(1500000)
    with http_server(content) as (port, _), running() as slirp:
        tcp = Tcp(slirp, offload).connect(GATEWAY, port)
        tcp.segment(ACK | PSH, b'GET / HTTP/1.0\r\n\r\n')
        head, body = tcp.read().split(b'\r\n\r\n', 1)
        assert b' 200 ' in head
        assert hashlib.sha256(body).digest() == hashlib.sha256(content).digest()
        assert tcp.largest > 16384, 'large segments come as one frame'


@pytest.mark.parametrize('offload,step', [(False, 1460), (True, 1460), (True, 61320)])
def test_http_to_host(offload, step):
    content = random.Random(2).randbytes(400000)
    with http_server(b'') as (port, received), running() as slirp:
        tcp = Tcp(slirp, offload).connect(GATEWAY, port)
        tcp.segment(ACK | PSH, b'PUT / HTTP/1.0\r\nContent-Length: %d\r\n\r\n' % len(content))
        tcp.write(content, step)
        assert b' 204 ' in tcp.read()
        assert received == [content]


def test_refused():
    port = free_port()
    with running() as slirp, pytest.raises(ConnectionRefusedError):
        Tcp(slirp).connect(GATEWAY, port)


def test_no_host():
    with http_server(b'x') as (port, _), running('--no-host') as slirp, \
            pytest.raises((ConnectionRefusedError, socket.timeout)):
        slirp.socket.settimeout(2)
        Tcp(slirp).connect(GATEWAY, port)


def test_forward_tcp():
    port = free_port()
    with running('--forward', 'tcp:127.0.0.1:%d-:22' % port) as slirp:
        slirp.arp(GATEWAY)
        with socket.create_connection(('127.0.0.1', port)) as client:
            client.settimeout(5)
            tcp = Tcp(slirp).accept(22)
            client.sendall(b'hello guest')
            assert tcp.read(11) == b'hello guest'
            tcp.segment(ACK | PSH, b'hello host')
            assert client.recv(100) == b'hello host'


def test_forward_udp():
    port = free_port(socket.SOCK_DGRAM)
    with running('--forward', 'udp:127.0.0.1:%d-:5353' % port) as slirp, \
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        slirp.arp(GATEWAY)
        client.sendto(b'ping', ('127.0.0.1', port))
        assert slirp.receive_udp(5353)[0] == b'ping'


def test_udp_large_datagram():
    """A datagram larger than the link arrives in fragments that fit together."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server, running() as slirp:
        server.bind(('127.0.0.1', 0))
        server.settimeout(5)
        slirp.send_ip(udp(GUEST, GATEWAY, 4000, server.getsockname()[1], b'?'))
        data, client = server.recvfrom(100)
        assert data == b'?'
        content = random.Random(3).randbytes(7000)
        server.sendto(content, client)
        pieces = {}

        def want(_, frame):
            ip = frame[14:]
            if frame[12:14] != b'\x08\x00' or ip[9] != 17:
                return None
            assert len(frame) <= 1514 and checksum(ip[:20]) == 0
            at = struct.unpack('!H', ip[6:8])[0]
            pieces[(at & 0x1fff) * 8] = ip[20:struct.unpack('!H', ip[2:4])[0]]
            return not at & 0x2000
        slirp.receive(want)
        whole = b''
        for at in sorted(pieces):
            assert at == len(whole)
            whole += pieces[at]
        assert whole[8:] == content
        assert checksum(pseudo(GATEWAY, GUEST, 17, len(whole)) + whole) == 0


def bind_resolver(tmp_path):
    """A command prefix that gives the process a resolv.conf that names 127.0.0.1, and a DNS server
    there; None when this user may not."""
    conf = tmp_path / 'resolv.conf'
    conf.write_text('nameserver 127.0.0.1\n')
    probe = subprocess.run(['unshare', '-rm', 'mount', '--bind', str(conf), '/etc/resolv.conf'],
                           stderr=subprocess.DEVNULL)
    if probe.returncode:
        pytest.skip('no right to a mount namespace for a resolv.conf of its own')
    server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        server.bind(('127.0.0.1', 53))
    except OSError:
        server.close()
        pytest.skip('port 53 of 127.0.0.1 is in use or needs root')
    server.settimeout(5)
    return ['unshare', '-rm', 'sh', '-c',
            'mount --bind "$0" /etc/resolv.conf && exec "$@"', str(conf)], server


@pytest.mark.parametrize('options', [(), ('--without-landlock',)])
def test_dns(tmp_path, options):
    wrapper, server = bind_resolver(tmp_path)
    with server, running(*options, wrapper=wrapper) as slirp:
        if options:
            for _ in range(2):
                assert server.recvfrom(100)[0] == b'', 'what makes libslirp read the file'
            time.sleep(1.2)
        query = b'\x12\x34\x01\0\0\1' + bytes(6) + b'\x05tenon\x04test\0\0\1\0\1'
        slirp.send_ip(udp(GUEST, DNS, 5000, 53, query))
        data, client = server.recvfrom(1000)
        assert data == query
        server.sendto(b'\x12\x34\x81\x80 the answer', client)
        reply, source = slirp.receive_udp(5000)
        assert reply == b'\x12\x34\x81\x80 the answer' and source == DNS


def test_restricted():
    with http_server(b'x') as (port, _), running('--restrict') as slirp:
        assert dhcp(slirp, 1)[0] == GUEST
        slirp.socket.settimeout(1)
        with pytest.raises((ConnectionRefusedError, socket.timeout)):
            tcp = Tcp(slirp)
            tcp.peer, tcp.peer_port = GATEWAY, port
            tcp.segment(SYN)
            _, _, flags, _, _, _ = tcp.receive(1)
            if flags & RST:
                raise ConnectionRefusedError


@pytest.mark.parametrize('kind,name', [(socket.SOCK_STREAM, 'tcp'), (socket.SOCK_DGRAM, 'udp')])
def test_busy_port(kind, name):
    with socket.socket(socket.AF_INET, kind) as holder:
        holder.bind(('127.0.0.1', 0))
        if name == 'tcp':
            holder.listen()
        port = holder.getsockname()[1]
        slirp = Slirp('--forward', '%s:127.0.0.1:%d-:22' % (name, port))
        assert slirp.status.startswith('error 4 port forward: %s port %d of 127.0.0.1 is in use' %
                                       (name.upper(), port))
        assert slirp.close() == 4
        slirp.process.stderr.close()


@pytest.mark.parametrize('options,status', [
    (['--forward', 'tcp:1.2.3:22-:22'], 'error 2 --forward: \'1.2.3\' is not an IPv4 address\n'),
    (['--forward', 'sctp::22-:22'], 'error 2 --forward \'sctp::22-:22\': the form is '),
    (['--forward', 'tcp::70000-:22'], 'error 2 --forward: \'70000\' is not a number from 0 to 65535\n'),
    (['--forward', 'tcp::2222-10.9.9.9:22'], 'error 2 --forward: the address is not one of'),
    (['--network', '10.0.2.0'], 'error 2 --network: '),
    (['--network', '10.0.2.0/31'], 'error 2 --network: '),
    (['--gateway', '10.1.1.1'], 'error 2 --gateway: '),
    (['--dns', 'ns.example'], 'error 2 --dns: '),
    (['--forward', 'tcp:192.0.2.1:2222-:22'], 'error 1 port forward: 192.0.2.1 is not an address'),
    (['surprise'], 'error 2 \'surprise\' is not an option\n'),
])
def test_bad_options(options, status):
    slirp = Slirp(*options)
    assert slirp.status.startswith(status)
    assert slirp.close() == int(status.split()[1])
    slirp.process.stderr.close()


def test_hostile_frames():
    """Frames that lie about themselves are dropped, and the process goes on."""
    rng = random.Random(4)
    with running() as slirp:
        good = slirp.arp(GATEWAY)
        for i in range(3000):
            header = rng.randbytes(12) if i % 2 else \
                struct.pack('<BBHHHHH', 1, rng.choice([0, 1, 3, 4, 0x81]), rng.randrange(100),
                            rng.choice([0, 1, 1460, 65535]), rng.randrange(80), rng.randrange(40), 0)
            frame = bytearray(good + MAC + rng.choice([b'\x08\0', b'\x08\6', b'\x86\xdd']) +
                              rng.randbytes(rng.choice([0, 3, 20, 60, 1500, 60000])))
            if len(frame) > 40 and i % 3:
                struct.pack_into('!BBHHHBB', frame, 14, 0x45, 0, len(frame) - 14, 1, 0, 64,
                                 rng.choice([1, 6, 17]))
                struct.pack_into('!H', frame, 24, 0)
                struct.pack_into('!H', frame, 24, checksum(bytes(frame[14:34])))
            try:
                slirp.socket.settimeout(0.2)
                slirp.socket.send(header + frame)
            except (BlockingIOError, socket.timeout):
                pass
            with contextlib.suppress(BlockingIOError, socket.timeout):
                slirp.socket.setblocking(False)
                while slirp.socket.recv(70000):
                    pass
        time.sleep(0.2)
        assert slirp.process.poll() is None
        assert slirp.arp(GATEWAY) == good


@pytest.mark.parametrize('how', ['close', 'kill'])
def test_ends_with_its_socket(how):
    """Nothing is left behind when the VMM ends, however it does."""
    if how == 'close':
        slirp = Slirp()
        assert slirp.status == 'ready\n'
        assert slirp.close() == 0
        slirp.process.stderr.close()
        return
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        slirp = Slirp()
        os.write(write, b'%d' % slirp.process.pid)
        signal.pause()
    pid = int(os.read(read, 20))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    os.close(read)
    os.close(write)
    end = time.monotonic() + 5
    while time.monotonic() < end and os.path.exists('/proc/%d' % pid):
        with contextlib.suppress(OSError):
            if open('/proc/%d/stat' % pid).read().rsplit(')', 1)[1].split()[0] == 'Z':
                return
        time.sleep(0.05)
    assert not os.path.exists('/proc/%d' % pid)


def test_confined():
    with running() as slirp:
        text = open('/proc/%d/status' % slirp.process.pid).read()
        fields = dict(line.split(':\t', 1) for line in text.splitlines() if ':\t' in line)
        assert fields['NoNewPrivs'] == '1' and fields['Seccomp'] == '2'
        for name in ('CapInh', 'CapPrm', 'CapEff', 'CapAmb'):
            assert int(fields[name], 16) == 0

