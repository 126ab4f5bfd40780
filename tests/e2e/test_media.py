"""
Media that others made, from Debian's packages: iPXE's own disc, memtest86+ from a GRUB disc, and Debian's
installer, which partitions a disk (soak: it fetches its parts from a mirror).

SPDX-License-Identifier: GPL-2.0-or-later
"""
import gzip
import os
import pathlib
import shutil
import subprocess

import pytest

from conftest import ROOT, read_until, wait_for
from test_ahci import TIMEOUT
from test_discs import TOOLS
from test_firmware_disk import FIRMWARE

INSTALLER = 'usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64/'
GRUB_CFG = """serial --unit=0 --speed=115200
terminal_output serial console
set timeout=0
menuentry 'Tenon' {
%s
}
"""
PRESEED = """d-i debian-installer/locale string en_US
d-i keyboard-configuration/xkb-keymap select us
d-i netcfg/choose_interface select auto
d-i netcfg/get_hostname string tenon
d-i netcfg/get_domain string local
d-i mirror/country string manual
d-i mirror/http/hostname string deb.debian.org
d-i mirror/http/directory string /debian
d-i mirror/http/proxy string
d-i clock-setup/ntp boolean false
d-i time/zone string UTC
d-i passwd/root-password password tenon
d-i passwd/root-password-again password tenon
d-i passwd/make-user boolean false
d-i partman-auto/method string regular
d-i partman-auto/choose_recipe select atomic
d-i partman-partitioning/confirm_write_new_label boolean true
d-i partman/choose_partition select finish
d-i partman/confirm boolean true
d-i partman/confirm_nooverwrite boolean true
"""


def package(name):
    """The files of a Debian package, which is not installed: some change the host's boot menu."""
    folder = ROOT / '.cache/packages' / name
    if not folder.exists():
        work = folder.with_name('%s.%d' % (name, os.getpid()))
        work.mkdir(parents=True)
        try:
            got = subprocess.run(['apt-get', '-q', '-o', 'APT::Sandbox::User=', 'download', name],
                                 cwd=work, capture_output=True, text=True)
            if got.returncode:
                pytest.skip('package %s cannot be fetched: %s' % (name, got.stderr[-200:]))
            subprocess.run(['dpkg-deb', '-x', next(work.glob('*.deb')), work / 'files'], check=True)
            (work / 'files').rename(folder)
        finally:
            shutil.rmtree(work)
    return folder


def grub_disc(directory, entry, files):
    """A disc whose only entry is `entry`, with these files in /boot."""
    missing = [tool for tool in TOOLS if not shutil.which(tool)]
    if missing:
        pytest.skip('GRUB and its tools are missing (tools/install-deps test): %s' % missing)
    root = directory / 'root'
    (root / 'boot/grub').mkdir(parents=True)
    for path in files:
        shutil.copy(path, root / 'boot')
    (root / 'boot/grub/grub.cfg').write_text(GRUB_CFG % entry)
    subprocess.run(['grub-mkrescue', '-o', directory / 'disc.iso', root], check=True,
                   capture_output=True)
    shutil.rmtree(root)


def start(tenon, kind, *args):
    if not pathlib.Path(FIRMWARE[kind]).exists():
        pytest.skip('%s is missing' % FIRMWARE[kind])
    extra = ('--firmware-vars', 'vars.fd') if kind == 'uefi' else ()
    return tenon.start('run', '--accel', 'soft', '--firmware', kind, *extra, *args)


def test_ipxe_starts_from_its_own_disc(tenon):
    process = start(tenon, 'bios', '--memory', '128M', '--net', 'user', '--cdrom',
                    package('ipxe') / 'usr/lib/ipxe/ipxe.iso')
    read_until(process, 'iPXE initialising devices...ok', TIMEOUT)
    read_until(process, 'using virtio-net', TIMEOUT)


@pytest.mark.parametrize('kind, program', [('bios', 'memtest86+x64.bin'),
                                           ('uefi', 'memtest86+x64.efi')], ids=['bios', 'uefi'])
def test_memtest_starts(tenon, kind, program):
    grub_disc(tenon.directory, '    linux /boot/%s console=ttyS0,115200' % program,
              [package('memtest86+') / 'boot' / program])
    process = start(tenon, kind, '--memory', '64M', '--cdrom', 'disc.iso')
    read_until(process, 'Errors: 0', TIMEOUT)
    read_until(process, '[Moving inversions', TIMEOUT)


def file_system(disk):
    """Is there an ext4 file system in a partition? Looks at whole MiB, where the installer begins them."""
    with open(disk, 'rb') as image:
        for mib in range(1, 1024):
            image.seek((mib << 20) + 1024 + 0x38)
            if image.read(2) == b'\x53\xef':
                return True
    return False


@pytest.mark.soak
@pytest.mark.parametrize('kind', ['bios', 'uefi'])
@pytest.mark.parametrize('bus', ['ahci', 'virtio'])
def test_the_installer_partitions_a_disk(tenon, kind, bus):
    folder = package('debian-installer-12-netboot-amd64') / INSTALLER
    preseed = tenon.directory / 'preseed.cfg'
    preseed.write_text(PRESEED)
    archive = subprocess.run(['cpio', '-o', '-H', 'newc', '--quiet'], input=b'preseed.cfg\n',
                             cwd=tenon.directory, capture_output=True, check=True).stdout
    (tenon.directory / 'preseed.gz').write_bytes(gzip.compress(archive))
    grub_disc(tenon.directory, '    linux /boot/linux console=ttyS0 auto=true priority=critical '
              'preseed/file=/preseed.cfg DEBIAN_FRONTEND=text\n'
              '    initrd /boot/initrd.gz /boot/preseed.gz',
              [folder / 'linux', folder / 'initrd.gz', tenon.directory / 'preseed.gz'])
    disk = pathlib.Path(tenon.disk('disk.img', 4 << 30))
    log = open(tenon.directory / 'log', 'wb')
    process = start(tenon, kind, '--memory', '1G', '--net', 'user', '--boot', 'cdrom', '--cdrom',
                    'disc.iso', '--disk', 'disk.img,bus=' + bus, stdout=log)
    wait_for(lambda: process.poll() is not None or file_system(disk), 3600,
             lambda: (tenon.directory / 'log').read_bytes()[-2000:])
    log.close()
    assert process.poll() is None, process.stderr.read()[-2000:]
    table = subprocess.run(['/sbin/sfdisk', '-l', disk], capture_output=True, text=True).stdout
    assert ('gpt' if kind == 'uefi' else 'dos') in table and 'Linux' in table, table
