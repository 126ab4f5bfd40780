"""
tenon image serve --vhost-user: a front end of our own, one that misbehaves, and QEMU with a Debian
guest whose fio writes and verifies the disk.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import mmap
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess

import pytest

from conftest import read_until, wait_for
from test_disks import TIMEOUT, fio_disk  # noqa: F401

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
            self.send(31, struct.pack('<QQHH', 0, 0, 1, 16))
            answer, fds, flags, _ = socket.recv_fds(self.socket, 32, 1)
            assert struct.unpack_from('<III', answer) == (31, 5, 20)
            self.region_fd, self.region_at = fds[0], answer[12:]
            size, offset, queues, entries = struct.unpack('<QQHH', self.region_at)
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

    def start(*args):
        process = tenon.start('image', 'serve', '--vhost-user', 'v.sock', *args)
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


def test_front_end_suits_qemus_back_end(tenon):
    """What stands in for a VMM here speaks with qemu-storage-daemon in the same words."""
    if not shutil.which('qemu-storage-daemon'):
        pytest.skip('qemu-storage-daemon is missing (package qemu-system-common)')
    os.chdir(tenon.directory)
    content = bytearray(os.urandom(1 << 20))
    (tenon.directory / 'a.raw').write_bytes(content)
    process = subprocess.Popen(
        ['qemu-storage-daemon', '--blockdev', 'driver=file,filename=a.raw,node-name=a', '--export',
         'type=vhost-user-blk,id=e,node-name=a,writable=on,addr.type=unix,addr.path=q.sock'], stdin=subprocess.DEVNULL)
    try:
        wait_for(lambda: (tenon.directory / 'q.sock').exists() or process.poll() is not None, 30, 'its socket')
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
    finally:
        process.terminate()
        assert process.wait(30) == 0
    assert (tenon.directory / 'a.raw').read_bytes() == content


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
    """Both halves of `tenon image serve`, the one that serves first."""
    children = pathlib.Path('/proc/%d/task/%d/children' % (process.pid, process.pid)).read_text().split()
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    process.kill()
    process.wait()
    assert len(children) == 1


def test_qemu_and_servers_that_are_killed(tenon, back_end, demo_guest, fio_disk):  # noqa: F811
    """QEMU's guest writes and verifies, while the back end is killed again and again and a new one comes."""
    if not shutil.which('qemu-system-x86_64'):
        pytest.skip('qemu-system-x86_64 is missing (package qemu-system-x86)')
    base = tenon.directory / 'base.raw'
    base.write_bytes(os.urandom(32 << 20))
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', '-b', base.name, '-F', 'raw',
                    'top.qcow2'], check=True)
    top = tenon.directory / 'top.qcow2'
    process = back_end('--queues', '2', 'top.qcow2')
    words = 'console=ttyS0 quiet tenon.demo=script lab.verify=2:vdb:16'
    qemu = subprocess.Popen(
        ['qemu-system-x86_64', '-M', 'q35,accel=tcg,memory-backend=mem', '-object',
         'memory-backend-memfd,id=mem,size=512M,share=on', '-m', '512M', '-smp', '2', '-nographic',
         '-no-reboot', '-net', 'none', '-kernel', demo_guest / 'vmlinuz', '-initrd',
         demo_guest / 'initrd', '-append', words, '-drive', 'file=%s,if=none,id=g,format=raw'
         % fio_disk, '-device', 'virtio-blk-pci,drive=g', '-chardev', 'socket,id=c,path=v.sock,reconnect=1',
         '-device', 'vhost-user-blk-pci,chardev=c,num-queues=2'],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    try:
        text = read_until(qemu, 'guest: queues of vdb: 2', 2 * TIMEOUT)
        for _ in range(3):  # each time that fio has written something
            size = top.stat().st_size
            wait_for(lambda: top.stat().st_size >= size + (256 << 10), TIMEOUT, 'writes')
            kill_server(process)
            (tenon.directory / 'v.sock').unlink()
            process = back_end('--queues', '2', 'top.qcow2')
        text += read_until(qemu, 'Power down', 2 * TIMEOUT)
        assert qemu.wait(TIMEOUT) == 0
    finally:
        qemu.kill()
        _, errors = qemu.communicate()
    assert 'guest: fio wrote and verified 32 MiB of vdb with 2 jobs' in text, (text[-2000:], errors)
    process.terminate()
    assert process.wait(30) == 0, process.stderr.read()
    check = subprocess.run(['qemu-img', 'check', '--output=json', 'top.qcow2'], capture_output=True)
    assert check.returncode in (0, 3) and 'corruptions' not in json.loads(check.stdout), check.stdout
