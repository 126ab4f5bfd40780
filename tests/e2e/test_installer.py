"""
Debian's network installer from a GRUB disc: it boots, configures the network, fetches its answers and
components, and partitions a disk. Under BIOS and UEFI, from the optical drive and from a virtio disk;
and on a PC without virtio, from the optical drive to SATA over the 82574L.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import shutil
import subprocess

import pytest

from conftest import PATIENCE, e2fsprogs
from installer import IMAGES, SUITE, Mirror
from test_media import grub_disc, package, start

DISK_SIZE = 64 << 20
ENTRY = """    linux /boot/linux console=ttyS0 quiet TERM=dumb DEBIAN_FRONTEND=text auto=true priority=critical \\
        url=http://10.0.2.2:%d/answers
    initrd /boot/initrd.gz"""


def partitions(image):
    sfdisk = shutil.which('sfdisk', path='/usr/sbin:/sbin:/usr/bin')
    text = subprocess.run([sfdisk, '--json', image], check=True, capture_output=True, text=True)
    return json.loads(text.stdout)['partitiontable']


def install(tenon, kind, *devices):
    files = [package('debian-installer-12-netboot-amd64') / IMAGES / name
             for name in ('linux', 'initrd.gz')]
    image = tenon.disk('installed.img', DISK_SIZE)
    with Mirror(tenon.directory / 'mirror', files[1], DISK_SIZE // 512) as mirror:
        grub_disc(tenon.directory, ENTRY % mirror.port, files)
        process = start(tenon, kind, '--memory', '1536M', *devices)
        out, err = process.communicate(timeout=2 * PATIENCE)
    out = out.decode(errors='replace')
    assert process.returncode == 0, (out[-3000:], err.decode(errors='replace')[-2000:])
    assert '/debian/dists/%s/Release' % SUITE in mirror.requests
    assert 'installer: partitioned' in out, out[-3000:]
    table = partitions(image)
    assert table['label'] == 'gpt' and len(table['partitions']) == 2
    at = table['partitions'][1]['start'] * 512
    assert e2fsprogs('e2fsck', '-fn', '%s?offset=%d' % (image, at)).returncode == 0
    return out


def test_from_a_virtio_disk_to_sata(tenon):
    out = install(tenon, 'uefi', '--disk', 'disc.iso,readonly', '--disk', 'installed.img,bus=ahci',
                  '--net', 'user')
    assert 'installer: disk sda' in out


@pytest.mark.soak
def test_from_a_virtio_disk_to_sata_under_bios(tenon):
    out = install(tenon, 'bios', '--disk', 'disc.iso,readonly', '--disk', 'installed.img,bus=ahci',
                  '--net', 'user')
    assert 'installer: disk sda' in out


@pytest.mark.soak
@pytest.mark.parametrize('kind', ['bios', 'uefi'])
def test_from_the_optical_drive_to_a_virtio_disk(tenon, kind):
    out = install(tenon, kind, '--cdrom', 'disc.iso', '--disk', 'installed.img', '--net', 'user')
    assert 'installer: disk vda' in out


@pytest.mark.soak
def test_without_virtio(tenon):
    out = install(tenon, 'bios', '--cdrom', 'disc.iso', '--disk', 'installed.img,bus=ahci', '--net',
                  'user,model=e1000e', '--no-rng')
    assert 'installer: disk sda' in out
