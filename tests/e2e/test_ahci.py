"""
The SATA controller, driven by Debian's generic kernel without a single virtio driver: a disk is
written, verified and left clean.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import re
import subprocess

from conftest import PATIENCE, ROOT, e2fsprogs
from test_disks import boot_args, digest, fio_disk, overlay  # noqa: F401


def start_words(pc_guest, words):
    return ('run', '--accel', 'soft', '--memory', '512M', '--kernel', pc_guest / 'vmlinux',
            '--initrd', pc_guest / 'initrd', '--no-rng',
            '--append', 'console=ttyS0 tenon.virtio=no ' + words)


def test_a_guest_without_virtio(tenon, pc_guest):
    disk = tenon.directory / 'disk.raw'
    subprocess.run([ROOT / 'tools/demo-guest', 'disk', disk], check=True, capture_output=True)
    result = tenon.run(*start_words(pc_guest, 'tenon.disk=/dev/sda'), '--disk',
                       'path=%s,bus=ahci,serial=SATA-1' % disk, '--cdrom', 'none', timeout=PATIENCE)
    text = result.stdout
    assert result.returncode == 0, (text[-3000:], result.stderr)
    assert 'demo: done' in text and 'demo: FAILED' not in text, text[-3000:]
    assert re.search(r'ahci 0000:00:1f\.2: AHCI 0001\.0301 32 slots 6 ports', text)
    assert re.search(r'ata1\.00: ATA-8: TENON DISK.*\n.*131072 sectors.*NCQ \(depth 32\)', text)
    assert re.search(r'ata2\.00: ATAPI: TENON DVD-ROM', text)
    assert 'virtio_pci' not in text and 'virtio_blk' not in text
    # Nothing went wrong on the way that the kernel had to repair.
    assert not re.search(r'ata\d.*(exception|failed|error|hard resetting|timeout)', text), text
    digest = re.search(r'demo: checksum sha256 ([0-9a-f]{64})', text).group(1)
    assert digest in e2fsprogs('debugfs', '-R', 'cat checksum.sha256', str(disk)).stdout
    assert e2fsprogs('e2fsck', '-fn', str(disk)).returncode == 0


def test_fio_verifies_queued_commands(tenon, pc_guest, fio_disk):  # noqa: F811
    base, top, before = overlay(tenon.directory, 'sata')
    result = tenon.run(*boot_args(pc_guest, fio_disk, 'lab.verify=1:sda:32'), '--disk',
                       'path=%s,bus=ahci' % top, timeout=PATIENCE)
    text = result.stdout
    assert result.returncode == 0, (text[-3000:], result.stderr)
    assert 'guest: fio wrote and verified 32 MiB of sda with 1 jobs' in text, text[-3000:]
    assert digest(base) == before
    check = subprocess.run(['qemu-img', 'check', top], capture_output=True, text=True)
    assert check.returncode == 0, check.stdout + check.stderr


def test_bad_places(tenon):
    def refused(*args):
        result = tenon.run('run', '--dry-run', *args)
        assert result.returncode == 2, result.stderr
        return result.stderr

    disk = tenon.disk()
    seven = [word for i in range(7) for word in ('--disk', disk + ',bus=sata')]
    assert 'has 6 ports' in refused(*seven)
    assert 'remove --board micro' in refused('--board', 'micro', '--disk', disk + ',bus=ahci')
    assert 'a cdrom is at bus ahci' in refused('--disk', disk + ',bus=nvme,media=cdrom')


def test_a_disc_that_was_cut_short(tenon):
    disc = tenon.directory / 'cut.iso'
    volume = bytearray(2048)
    volume[0:6] = b'\x01CD001'
    volume[80:84] = (1000).to_bytes(4, 'little')
    volume[128:130] = (2048).to_bytes(2, 'little')
    disc.write_bytes(bytes(16 * 2048) + volume + bytes(4096))
    result = tenon.run('run', '--firmware', 'bios', '--cdrom', disc)
    assert result.returncode == 1
    assert 'was cut short' in result.stderr and '2048000 bytes' in result.stderr
