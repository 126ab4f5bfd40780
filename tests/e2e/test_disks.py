"""
Disks of every bus, driven by Debian's kernel: fio writes and verifies qcow2 images with a backing
file; afterwards qemu-img finds nothing wrong with them, and the backing files are as they were.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import hashlib
import os
import pathlib
import shutil
import subprocess

import pytest

from conftest import PATIENCE, ROOT

SIZE = 32 << 20


@pytest.fixture
def fio_disk(tmp_path):
    """A disk for the demonstration guest with fio and a script that runs it."""
    for program in ('fio', 'iperf3', 'qemu-img'):
        if not shutil.which(program):
            pytest.skip('%s is missing' % program)
    path = tmp_path / 'guest.raw'
    subprocess.run([ROOT / 'tests/lab/guest-disk', path], check=True, capture_output=True)
    return path


def digest(path):
    return hashlib.sha256(pathlib.Path(path).read_bytes()).hexdigest()


def overlay(folder, name, size=SIZE):
    """A qcow2 image over a raw file, half of which is random."""
    base, top = folder / (name + '.raw'), folder / (name + '.qcow2')
    base.write_bytes(os.urandom(size // 2) + bytes(size // 2))
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', '-b', base.name, '-F', 'raw', top],
                   check=True)
    return base, top, digest(base)


def boot_args(demo_guest, fio_disk, words):
    return ('run', '--accel', 'soft', '--memory', '512M', '--kernel', demo_guest / 'vmlinux',
            '--initrd', demo_guest / 'initrd', '--disk', fio_disk, '--append',
            'console=ttyS0 quiet tenon.demo=script ' + words)


def boot(tenon, demo_guest, fio_disk, words, *args):
    return tenon.run(*boot_args(demo_guest, fio_disk, words), *args, timeout=PATIENCE)


def test_fio_verifies_every_bus(tenon, demo_guest, fio_disk):
    """virtio-blk with four queues, virtio-scsi, NVMe at a queue depth of 1024."""
    folder = tenon.directory
    disks = [overlay(folder, name) for name in ('blk', 'scsi', 'nvme')]
    words = 'lab.verify=4:vdb:32 lab.verify=2:sda:64 lab.verify=1:nvme0n1:1024'
    result = boot(tenon, demo_guest, fio_disk, words, '--cpus', 4,
                  '--disk', 'path=%s,queues=4' % disks[0][1],
                  '--disk', 'path=%s,bus=scsi,logical-block-size=4096' % disks[1][1],
                  '--disk', 'path=%s,bus=nvme' % disks[2][1])
    text = result.stdout
    assert result.returncode == 0, (text[-3000:], result.stderr)
    assert 'FAILED' not in text, text[-3000:]
    for disk, jobs in (('vdb', 4), ('sda', 2), ('nvme0n1', 1)):
        assert 'guest: queues of %s: 4' % disk in text
        assert 'guest: fio wrote and verified 32 MiB of %s with %d jobs' % (disk, jobs) in text
    for base, top, before in disks:
        assert digest(base) == before
        check = subprocess.run(['qemu-img', 'check', top], capture_output=True, text=True)
        assert check.returncode == 0, check.stdout + check.stderr


def test_what_the_guest_sees(tenon, demo_guest, fio_disk):
    """Serial numbers, read-only disks, several units and namespaces."""
    for name in 'abcdefg':
        tenon.disk(name + '.img')
    result = boot(tenon, demo_guest, fio_disk, 'lab.disks=x',
                  '--disk', 'a.img,serial=SER-BLK,readonly',
                  '--disk', 'b.img,bus=scsi,serial=SER-SCSI', '--disk', 'c.img,bus=scsi,readonly',
                  '--disk', 'd.img,bus=nvme,serial=SER-NVME',
                  '--disk', 'e.img,bus=nvme,serial=SER-NVME,readonly',
                  '--disk', 'f.img,bus=nvme,serial=OTHER,logical-block-size=4096',
                  '--disk', 'g.img,logical-block-size=4096')
    text = result.stdout
    assert result.returncode == 0, (text[-3000:], result.stderr)
    for line in ('vdb 2048 ro=1 block=512 serial=SER-BLK', 'sda 2048 ro=0 block=512 serial=SER-SCSI',
                 'sdb 2048 ro=1 block=512 serial=', 'nvme0n1 2048 ro=0 block=512 serial=SER-NVME',
                 'nvme0n2 2048 ro=1 block=512 serial=SER-NVME',
                 'nvme1n1 2048 ro=0 block=4096 serial=OTHER', 'vdc 2048 ro=0 block=4096'):
        assert 'guest: disk ' + line in text, text[-3000:]
