"""
tenon image serve --vhost-user: a front end of our own, one that misbehaves, and QEMU with a Debian
guest whose fio writes and verifies the disk.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import contextlib
import json
import mmap
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import threading

import pytest

from conftest import PATIENCE, ROOT, read_until, wait_for
from test_disks import boot_args, fio_disk  # noqa: F401

ADDRESS = 0x7f0000000000  # where the front end has its guest's memory
MEMORY = 1 << 20
PROTOCOL = 0x1201  # MQ, CONFIG, INFLIGHT_SHMFD
FEATURES = 1 << 32 | 1 << 30 | 1 << 9  # VERSION_1, PROTOCOL_FEATURES, FLUSH


class FrontEnd:
    """Speaks the protocol; its guest is the test."""

    def __init__(self, path):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(path)

    def send(self, request, payload=b'', fds=()):
        socket.send_fds(self.socket, [struct.pack('<III', request, 1, len(payload)) + payload],
                        list(fds))

    def answer(self):
        header = self.exact(12)
        request, flags, length = struct.unpack('<III', header)
        assert flags == 5
        return self.exact(length)

    def exact(self, length):
        got = b''
        while len(got) < length:
            piece = self.socket.recv(length - len(got))
            if not piece:
                raise ConnectionError('the back end hung up')
            got += piece
        return got

    def number(self, request):
        self.send(request)
        return struct.unpack('<Q', self.answer())[0]

    def start(self, before=None):
        """`before`: a front end whose back end is gone, with the memory and the rings of its guest."""
        assert self.number(1) & FEATURES == FEATURES
        protocol = self.number(15) & PROTOCOL
        self.send(16, struct.pack('<Q', protocol))
        self.send(3)
        self.send(2, struct.pack('<Q', FEATURES))
        if before:
            self.memory_fd, self.memory, self.avail = before.memory_fd, before.memory, before.avail
        else:
            self.memory_fd, self.avail = os.memfd_create('guest'), 0
            os.truncate(self.memory_fd, MEMORY)
            self.memory = mmap.mmap(self.memory_fd, MEMORY)
        self.send(5, struct.pack('<IIQQQQ', 1, 0, 0, MEMORY, ADDRESS, 0), [self.memory_fd])
        self.kick, self.call = os.eventfd(0), os.eventfd(0)
        if protocol & 0x1000:
            self.inflight(before)
        self.send(8, struct.pack('<II', 0, 16))
        self.send(10, struct.pack('<II', 0, struct.unpack_from('<H', self.memory, 0x3002)[0]))
        self.send(9, struct.pack('<IIQQQQ', 0, 0, ADDRESS + 0x1000, ADDRESS + 0x3000,
                                 ADDRESS + 0x2000, 0))
        self.send(13, struct.pack('<Q', 0), [self.call])
        self.send(12, struct.pack('<Q', 0), [self.kick])
        self.send(18, struct.pack('<II', 0, 1))

    def inflight(self, before):
        """Asks for the memory of what is in flight, or hands on what the back end before had."""
        if before:
            self.region_fd, self.region_at, self.region = before.region_fd, before.region_at, before.region
        else:
            self.send(31, struct.pack('<QQHH4x', 0, 0, 1, 16))  # padded, as QEMU sends it
            answer, fds, flags, _ = socket.recv_fds(self.socket, 40, 1)
            assert struct.unpack_from('<III', answer) == (31, 5, 24)
            self.region_fd, self.region_at = fds[0], answer[12:]
            size, offset, queues, entries = struct.unpack('<QQHH4x', self.region_at)
            assert (queues, entries) == (1, 16) and size >= 16 + 16 * 16
            self.region = mmap.mmap(self.region_fd, size, offset=offset)
        self.send(32, self.region_at, [self.region_fd])

    def request(self, kind, sector, data_len, write=b''):
        """One request of virtio-blk through the ring: status, data."""
        memory = self.memory
        memory[0x4000:0x4010] = struct.pack('<IIQ', kind, 0, sector)
        memory[0x5000:0x5000 + len(write)] = write
        memory[0x6000] = 0xEE
        memory[0x1000:0x1030] = (
            struct.pack('<QIHH', 0x4000, 16, 1, 1)
            + struct.pack('<QIHH', 0x5000, data_len, 1 if write else 3, 2)
            + struct.pack('<QIHH', 0x6000, 1, 2, 0))
        struct.pack_into('<H', memory, 0x2004 + 2 * (self.avail % 16), 0)
        self.avail += 1
        struct.pack_into('<H', memory, 0x2002, self.avail)
        os.eventfd_write(self.kick, 1)
        wait_for(lambda: struct.unpack_from('<H', memory, 0x3002)[0] == self.avail, 30, 'an answer')
        os.eventfd_read(self.call)
        return memory[0x6000], bytes(memory[0x5000:0x5000 + data_len])


@pytest.fixture
def back_end(tenon):
    os.chdir(tenon.directory)

    def start(*args, at='v.sock'):
        process = tenon.start('image', 'serve', '--vhost-user', at, *args)
        assert b'serving' in process.stdout.readline(), process.stderr.read()
        return process
    return start


def test_rings_and_memory(tenon, back_end):
    content = bytearray(os.urandom(1 << 20))
    (tenon.directory / 'a.raw').write_bytes(content)
    process = back_end('--queues', '2', '--format', 'raw', 'a.raw')
    for turn in range(2):  # the second front end finds everything as the first did
        front = FrontEnd('v.sock')
        assert front.number(15) & PROTOCOL == PROTOCOL
        front.start()
        assert front.number(17) == 2
        front.send(24, struct.pack('<III', 0, 60, 0) + bytes(60))
        assert struct.unpack_from('<Q', front.answer(), 12)[0] == len(content) // 512
        for i in range(20):
            assert front.request(0, i, 512) == (0, bytes(content[i * 512:(i + 1) * 512]))
            new = os.urandom(512)
            assert front.request(1, 100 + i, 512, new)[0] == 0
            content[(100 + i) * 512:(101 + i) * 512] = new
        assert front.request(0, len(content) // 512, 512)[0] == 1
        # Stopped, it says where it stands, and goes on from there.
        front.send(11, struct.pack('<II', 0, 0))
        assert struct.unpack('<II', front.answer()) == (0, front.avail)
        front.send(10, struct.pack('<II', 0, front.avail))
        front.send(12, struct.pack('<Q', 0), [front.kick])
        front.send(18, struct.pack('<II', 0, 1))
        assert front.request(0, 100, 512) == (0, bytes(content[51200:51712]))
        front.socket.close()
    assert (tenon.directory / 'a.raw').read_bytes() == content
    process.terminate()
    assert process.wait(30) == 0
    tenon.expect_nothing_left()


@contextlib.contextmanager
def daemon(tenon, path, *, node='', export=''):
    """The socket of QEMU's own back end for a file in the test's folder."""
    if not shutil.which('qemu-storage-daemon'):
        pytest.skip('qemu-storage-daemon is missing (package qemu-system-common)')
    os.chdir(tenon.directory)
    process = subprocess.Popen(
        ['qemu-storage-daemon', '--blockdev', 'driver=file,filename=%s,node-name=a%s' % (path, node), '--export',
         'type=vhost-user-blk,id=e,node-name=a,addr.type=unix,addr.path=q.sock,' + (export or 'writable=on')],
        stdin=subprocess.DEVNULL)
    try:
        wait_for(lambda: (tenon.directory / 'q.sock').exists() or process.poll() is not None, 30, 'its socket')
        yield process
    finally:
        process.terminate()
        assert process.wait(30) == 0


def test_front_end_suits_qemus_back_end(tenon):
    """What stands in for a VMM here speaks with qemu-storage-daemon in the same words."""
    content = bytearray(os.urandom(1 << 20))
    (tenon.directory / 'a.raw').write_bytes(content)
    with daemon(tenon, 'a.raw'):
        front = FrontEnd('q.sock')
        front.start()
        front.send(24, struct.pack('<III', 0, 60, 0) + bytes(60))
        assert struct.unpack_from('<Q', front.answer(), 12)[0] == len(content) // 512
        for i in range(20):
            assert front.request(0, i, 512) == (0, bytes(content[i * 512:(i + 1) * 512]))
            new = os.urandom(512)
            assert front.request(1, 100 + i, 512, new)[0] == 0
            content[(100 + i) * 512:(101 + i) * 512] = new
        front.socket.close()
    assert (tenon.directory / 'a.raw').read_bytes() == content


def image(tenon, *args, status=0):
    done = tenon.run_beside('image', *args)
    assert done.returncode == status, (args, done.stdout, done.stderr)
    return done


def work_on(tenon, name):
    """tenon image with a disk of 3 MiB that somebody else serves, and what it is to hold afterwards."""
    info = json.loads(image(tenon, 'info', '--json', '-f', 'raw', name).stdout)
    assert info['virtual-size'] == 3 << 20
    (tenon.directory / 'new.raw').write_bytes(os.urandom(2 << 20) + bytes(1 << 20))
    image(tenon, 'convert', '-n', '-f', 'raw', '-O', 'raw', 'new.raw', name)
    image(tenon, 'compare', '-f', 'raw', '-F', 'raw', name, 'new.raw')
    image(tenon, 'bench', '-q', '-f', 'raw', '-c', '500', '-d', '16', '-s', '4096', name)
    image(tenon, 'convert', '-f', 'raw', '-O', 'qcow2', '-c', '-m', '4', name, 'got.qcow2')
    # Parts of sectors and of blocks, zeros and discards, through a server of ours in front of it.
    server = tenon.start('image', 'serve', '--socket', 'nbd.sock', '--format', 'raw', name)
    assert b'serving' in server.stdout.readline(), server.stderr.read()
    work = ['write -P 1 1000 10', 'write -P 2 4000 200', 'write -z 8192 65536', 'write -P 3 1000000 300000', 'write -z 1M 333',
            'discard 2M 512k', 'write -P 4 3145000 728', 'read -P 2 4000 200', 'flush']
    commands = [word for command in work for word in ('-c', command)]
    try:
        subprocess.run(['qemu-io', '-f', 'raw', *commands, 'nbd+unix:///?socket=nbd.sock'], check=True, capture_output=True)
    finally:
        server.terminate()
        assert server.wait(30) == 0, server.stderr.read()
    subprocess.run(['qemu-io', '-f', 'raw', *commands, 'new.raw'], check=True, capture_output=True)
    image(tenon, 'compare', '-f', 'raw', '-F', 'raw', name, 'new.raw')
    return (tenon.directory / 'new.raw').read_bytes()


def test_image_of_our_own_back_end(tenon, back_end):
    if not shutil.which('qemu-io'):
        pytest.skip('qemu-io is missing (package qemu-utils)')
    tenon.disk('a.raw', 3 << 20)
    process = back_end('--format', 'raw', 'a.raw')
    want = work_on(tenon, 'vhost-user:v.sock')
    # One that is killed is an error, and a sentence.
    bench = tenon.start('image', 'bench', '-w', '-f', 'raw', '-c', '100000000', 'vhost-user:v.sock')
    wait_for(lambda: (tenon.directory / 'a.raw').read_bytes() != want, 30, 'a write')
    kill_server(process)
    _, errors = bench.communicate(timeout=30)
    assert bench.returncode == 1 and errors.count(b'\n') == 1, errors
    assert b'Connection refused' in image(tenon, 'info', 'vhost-user:v.sock', status=1).stderr.encode()
    assert 'path of a socket' in image(tenon, 'info', 'vhost-user:', status=2).stderr


def test_image_of_qemus_back_end(tenon):
    if not shutil.which('qemu-io'):
        pytest.skip('qemu-io is missing (package qemu-utils)')
    tenon.disk('a.raw', 3 << 20)
    with daemon(tenon, 'a.raw', node=',discard=unmap', export='writable=on,logical-block-size=4096'):
        want = work_on(tenon, 'vhost-user:q.sock')
    assert (tenon.directory / 'a.raw').read_bytes() == want
    (tenon.directory / 'q.sock').unlink(missing_ok=True)
    with daemon(tenon, 'a.raw', export='writable=off'):
        image(tenon, 'compare', '-f', 'raw', '-F', 'raw', 'vhost-user:q.sock', 'a.raw')
        done = image(tenon, 'convert', '-n', '-f', 'raw', '-O', 'raw', 'new.raw', 'vhost-user:q.sock', status=3)
        assert 'read-only' in done.stderr


def test_image_of_dpdks_back_end(tenon):
    """librte_vhost has no disk of its own: dpdk_blk.py is one, behind DPDK's protocol, memory and rings."""
    if not shutil.which('qemu-io'):
        pytest.skip('qemu-io is missing (package qemu-utils)')
    disk = pathlib.Path(tenon.disk('a.raw', 3 << 20))
    os.chdir(tenon.directory)
    process = subprocess.Popen(['/usr/bin/python3', ROOT / 'tests/e2e/dpdk_blk.py', 'd.sock', 'a.raw'], stdin=subprocess.PIPE,
                               stdout=subprocess.PIPE, text=True)
    try:
        line = process.stdout.readline()
        if 'serving' not in line and process.wait(30) == 77:
            pytest.skip('librte_vhost (package librte-vhost23): ' + line.strip())
        assert 'serving' in line, line
        want = work_on(tenon, 'vhost-user:d.sock')
    finally:
        process.communicate(timeout=30)
    assert process.returncode == 0 and disk.read_bytes() == want


def test_guest_with_disks_of_others(tenon, back_end, demo_guest, fio_disk):  # noqa: F811
    """A VM's disks from QEMU's daemon, as virtio, and from a server of ours, as NVMe."""
    tenon.disk('a.raw', 8 << 20)
    tenon.disk('b.raw', 8 << 20)
    process = back_end('--format', 'raw', 'b.raw')
    with daemon(tenon, 'a.raw'):
        result = tenon.run_beside(*boot_args(demo_guest, fio_disk, 'lab.verify=2:vdb:16 lab.verify=1:nvme0n1:64'),
                                  '--cpus', 2, '--disk', 'path=vhost-user:q.sock,queues=2', '--disk',
                                  'path=vhost-user:v.sock,bus=nvme', timeout=PATIENCE)
        text = result.stdout
    assert result.returncode == 0, (text[-3000:], result.stderr)
    assert 'guest: fio wrote and verified 8 MiB of vdb with 2 jobs' in text, text[-3000:]
    assert 'guest: fio wrote and verified 8 MiB of nvme0n1 with 1 jobs' in text, text[-3000:]
    process.terminate()
    assert process.wait(30) == 0


class Liar(threading.Thread):
    """A back end that says what it is told to: payloads by request, or nothing and hangs up."""

    def __init__(self, path, answers, used=None):
        super().__init__(daemon=True)
        self.answers, self.used = answers, used
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen()
        self.start()

    def run(self):
        connection, _ = self.listener.accept()
        with connection, contextlib.suppress(ConnectionError):  # nobody listens to a liar for long
            while True:
                header, fds, _, _ = socket.recv_fds(connection, 12, 8)
                if len(header) < 12:
                    return
                request, _, length = struct.unpack('<III', header)
                payload = connection.recv(length, socket.MSG_WAITALL) if length else b''
                if request == 5:
                    memory = mmap.mmap(fds[0], struct.unpack_from('<Q', payload, 16)[0])
                    base, = struct.unpack_from('<Q', payload, 24)
                if request == 9:
                    used, = struct.unpack_from('<Q', payload, 16)
                if request == 18:
                    struct.pack_into('<HHII', memory, used - base, 0, 1, self.used, 0)
                    os.eventfd_write(call, 1)
                if request == 13:
                    call = fds[0]
                if request in self.answers:
                    answer = self.answers[request]
                    if answer is None:
                        return
                    connection.sendall(struct.pack('<III', request, 5, len(answer)) + answer)


def config(sectors=2048, block=512):
    return struct.pack('<IIIQIIHBBIBBHI', 0, 60, 0, sectors, 0, 0, 0, 0, 0, block, 0, 0, 0, 0).ljust(72, b'\0')


@pytest.mark.parametrize('lie,text', [
    ({1: None}, 'hung up'), ({1: bytes(8)}, 'no virtio 1'), ({1: bytes(4)}, 'something else'), ({15: bytes(8)}, "its disk's size"),
    ({24: b''}, 'something else'), ({24: config(1 << 60)}, 'larger than any'), ({24: config(block=3)}, 'blocks of 3 bytes'),
    ({24: config(block=1 << 31)}, 'blocks of'), ({24: config(2047, 4096)}, 'blocks of 4096'), ({}, 'Input/output error')],
    ids=lambda value: str(value)[:30])
def test_back_ends_that_lie(tenon, lie, text):
    os.chdir(tenon.directory)
    good = {1: struct.pack('<Q', FEATURES | 1 << 6), 15: struct.pack('<Q', 0x200), 24: config()}
    Liar('liar.sock', good | lie, used=7)  # an answer to what nobody asked
    done = tenon.run_beside('image', 'dd', '-f', 'raw', 'if=vhost-user:liar.sock', 'of=out.raw')
    assert done.returncode == 1 and text in done.stderr and done.stderr.count('\n') == 1, done.stderr
    assert not (tenon.directory / 'out.raw').exists()


def test_next_back_end_goes_on(tenon, back_end):
    """Killed at the worst moments: what was taken and not answered is answered by the next one, once."""
    content = bytes(range(256)) * 4096
    (tenon.directory / 'a.raw').write_bytes(content)
    args = ('--format', 'raw', 'a.raw')
    process = back_end(*args)
    front = FrontEnd('v.sock')
    front.start()
    for i in range(20):  # beyond the ring's end
        assert front.request(0, i, 512) == (0, content[i * 512:(i + 1) * 512])
    memory, region = front.memory, front.region
    assert struct.unpack_from('<HHHH', region, 8) == (1, 16, 0, 20) and not any(region[16::16][:16])
    process.kill()
    process.wait()
    assert front.socket.recv(1) == b''
    # Reads at heads 6, 3 and 9. Of the first its answer was shown and its mark is still there; the others
    # were taken, 9 before 3. Then one at head 12 that nobody has taken.
    for head, sector in ((3, 100), (6, 101), (9, 102), (12, 103)):
        place = 0x8000 + head * 0x1000
        memory[place:place + 16] = struct.pack('<IIQ', 0, 0, sector)
        memory[place + 0x800] = 0xEE
        for i, (at, length, flags, after) in enumerate(((place, 16, 1, head + 1), (place + 0x400, 512, 3, head + 2),
                                                       (place + 0x800, 1, 2, 0))):
            memory[0x1000 + 16 * (head + i):0x1010 + 16 * (head + i)] = struct.pack('<QIHH', at, length, flags, after)
    for i, head in enumerate((6, 9, 3, 12)):
        struct.pack_into('<H', memory, 0x2004 + 2 * ((front.avail + i) % 16), head)
    struct.pack_into('<H', memory, 0x2002, front.avail + 4)
    for order, head in enumerate((6, 9, 3)):
        struct.pack_into('<B5xHQ', region, 16 + 16 * head, 1, 0, 50 + order)
    struct.pack_into('<H', region, 12, 6)                        # the last that was used
    struct.pack_into('<H', memory, 0x3002, front.avail + 1)  # shown, but not yet written down as shown
    memory[0x8000 + 6 * 0x1000 + 0x800] = 0
    front.avail += 1
    process = back_end(*args)
    again = FrontEnd('v.sock')
    again.start(before=front)
    wait_for(lambda: struct.unpack_from('<H', memory, 0x3002)[0] == front.avail + 3, 30, 'the answers')
    used = [struct.unpack_from('<I', memory, 0x3004 + 8 * ((front.avail + i) % 16))[0] for i in range(3)]
    assert sorted(used) == [3, 9, 12]
    for head, sector in ((3, 100), (9, 102), (12, 103)):
        place = 0x8000 + head * 0x1000
        assert memory[place + 0x800] == 0 and memory[place + 0x400:place + 0x600] == content[sector * 512:sector * 512 + 512]
    assert memory[0x8000 + 6 * 0x1000 + 0x400:0x8000 + 6 * 0x1000 + 0x600] == bytes(512)  # not done twice
    wait_for(lambda: struct.unpack_from('<H', region, 14)[0] == front.avail + 3, 30, 'the last note')
    assert not any(region[16::16][:16])
    again.avail = front.avail + 3
    assert again.request(0, 7, 512) == (0, content[7 * 512:8 * 512])
    # A region that tells nonsense breaks the ring, and nothing else.
    for at, value in ((8, 7), (10, 15), (14, 0x4000)):
        kept = bytes(region)
        struct.pack_into('<H', region, at, value)
        again.socket.close()
        liar = FrontEnd('v.sock')
        liar.start(before=again)
        liar.number(1)
        region[:] = kept
        again = liar
    again.socket.close()
    last = FrontEnd('v.sock')
    last.start(before=again)
    assert last.request(0, 9, 512) == (0, content[9 * 512:10 * 512])
    process.terminate()
    assert process.wait(30) == 0


def test_front_ends_that_lie(tenon, back_end):
    tenon.disk('a.raw')
    process = back_end('--format', 'raw', 'a.raw')
    small = os.memfd_create('small')
    os.truncate(small, 4096)
    for request, payload, fds in (
            (1 << 20, b'', ()), (5, struct.pack('<II', 9, 0), ()), (5, b'', ()),
            (5, struct.pack('<IIQQQQ', 1, 0, 0, 1 << 40, ADDRESS, 0), [small]),
            (5, struct.pack('<IIQQQQ', 1, 0, 0, 4096, ADDRESS, 1 << 62), [small]),
            (5, struct.pack('<IIQQQQ', 1, 0, 0, 4096, ADDRESS, 0), ()),
            (2, struct.pack('<Q', 1 << 63), ()), (9, bytes(4), ()), (18, struct.pack('<II', 7, 1), ()),
            (12, struct.pack('<Q', 99), ()), (24, struct.pack('<III', 0, 1 << 30, 0), ()),
            (16, struct.pack('<Q', 1 << 40), ()), (31, struct.pack('<QQHH', 0, 0, 9, 16), ()),
            (31, struct.pack('<QQHH', 0, 0, 1, 0), ()), (31, bytes(4), ()),
            (32, struct.pack('<QQHH', 1 << 40, 0, 1, 16), [small]), (32, struct.pack('<QQHH', 4096, 0, 1, 1024), [small]),
            (32, struct.pack('<QQHH', 4096, 4096, 1, 16), [small]), (32, struct.pack('<QQHH', 4096, 0, 1, 16), ())):
        front = FrontEnd('v.sock')
        front.send(request, payload, fds)
        assert front.socket.recv(100) == b'', (request, payload)
    front = FrontEnd('v.sock')
    front.socket.sendall(struct.pack('<III', 1, 1, 1 << 31))  # a message of 2 GiB
    assert front.socket.recv(100) == b''
    # Rings of nowhere, and descriptors that point outside the memory.
    front = FrontEnd('v.sock')
    front.start()
    front.send(9, struct.pack('<IIQQQQ', 0, 0, 0, 0, 0, 0))
    front.number(1)
    front.socket.close()
    front = FrontEnd('v.sock')
    front.start()
    front.memory[0x1000:0x1010] = struct.pack('<QIHH', 1 << 40, 16, 1, 0)
    struct.pack_into('<H', front.memory, 0x2002, 1)
    os.eventfd_write(front.kick, 1)
    front.number(1)
    front.socket.close()
    front = FrontEnd('v.sock')
    front.start()
    assert front.request(0, 0, 512) == (0, bytes(512))
    os.close(small)
    process.terminate()
    assert process.wait(30) == 0


def kill_server(process):
    """Both halves of `tenon image serve`, before the other has seen that the one that serves is gone."""
    process.send_signal(signal.SIGSTOP)
    children = pathlib.Path('/proc/%d/task/%d/children' % (process.pid, process.pid)).read_text().split()
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    process.kill()
    process.wait()
    assert len(children) == 1


def test_qemu_and_servers_that_are_killed(tenon, back_end, demo_guest, fio_disk):  # noqa: F811
    """
    QEMU's guest writes and verifies a raw disk while its back end is killed again and again and a new one comes, and
    a qcow2 image, whose tables a kill would take along, in peace.
    """
    if not shutil.which('qemu-system-x86_64'):
        pytest.skip('qemu-system-x86_64 is missing (package qemu-system-x86)')
    (tenon.directory / 'base.raw').write_bytes(os.urandom(4 << 20))
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', '-b', 'base.raw', '-F', 'raw', 'top.qcow2'], check=True)
    disk = pathlib.Path(tenon.disk('a.raw', 32 << 20))
    raw = ('--queues', '2', '--format', 'raw', 'a.raw')
    process, quiet = back_end(*raw), back_end('top.qcow2', at='w.sock')
    words = 'console=ttyS0 quiet tenon.demo=script lab.verify=2:vdb:16 lab.verify=1:vdc:16'
    vhost = [word for name, queues in (('v', 2), ('w', 1)) for word in (
        '-chardev', 'socket,id=%s,path=%s.sock,reconnect=1' % (name, name), '-device',
        'vhost-user-blk-pci,chardev=%s,num-queues=%d' % (name, queues))]
    qemu = subprocess.Popen(
        ['qemu-system-x86_64', '-M', 'q35,accel=tcg,memory-backend=mem', '-object',
         'memory-backend-memfd,id=mem,size=512M,share=on', '-m', '512M', '-smp', '2', '-nographic',
         '-no-reboot', '-net', 'none', '-kernel', demo_guest / 'vmlinuz', '-initrd',
         demo_guest / 'initrd', '-append', words, '-drive', 'file=%s,if=none,id=g,format=raw'
         % fio_disk, '-device', 'virtio-blk-pci,drive=g', *vhost],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        text = read_until(qemu, 'guest: queues of vdb: 2', 2 * PATIENCE)
        for _ in range(3):  # each time that fio has written something
            blocks = disk.stat().st_blocks
            wait_for(lambda: disk.stat().st_blocks >= blocks + 512, PATIENCE, 'writes')
            kill_server(process)
            (tenon.directory / 'v.sock').unlink()
            process = back_end(*raw)
        text += read_until(qemu, 'Power down', 2 * PATIENCE)
        assert qemu.wait(PATIENCE) == 0
    finally:
        qemu.kill()
        _, errors = qemu.communicate()
    assert 'guest: fio wrote and verified 32 MiB of vdb with 2 jobs' in text, (text[-2000:], errors)
    assert 'guest: fio wrote and verified 4 MiB of vdc with 1 jobs' in text, text[-2000:]
    for server in (process, quiet):
        server.terminate()
        assert server.wait(30) == 0, server.stderr.read()
    check = subprocess.run(['qemu-img', 'check', '--output=json', 'top.qcow2'], capture_output=True)
    assert check.returncode == 0 and json.loads(check.stdout)['check-errors'] == 0
