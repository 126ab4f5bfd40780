"""
Media that others made, from Debian's packages: iPXE's own disc and kernel, GRUB's rescue disc, and
memtest86+ from a GRUB disc.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import pathlib
import shutil
import subprocess

import pytest

from conftest import FIRMWARE, PATIENCE, ROOT, read_until
from test_discs import TOOLS
from test_screen import Watch

GRUB_CFG = """serial --unit=0 --speed=115200
terminal_output serial console
set timeout=0
menuentry 'Tenon' {
%s
}
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


def start(tenon, kind, *args, **options):
    if not pathlib.Path(FIRMWARE[kind]).exists():
        pytest.skip('%s is missing' % FIRMWARE[kind])
    extra = ('--firmware-vars', 'vars.fd') if kind == 'uefi' else ()
    return tenon.start('run', '--accel', 'soft', '--firmware', kind, *extra, *args, **options)


def test_ipxe_starts_from_its_own_disc(tenon):
    process = start(tenon, 'bios', '--memory', '128M', '--net', 'user', '--cdrom',
                    package('ipxe') / 'usr/lib/ipxe/ipxe.iso')
    read_until(process, 'iPXE initialising devices...ok', PATIENCE)
    read_until(process, 'using virtio-net', PATIENCE)


def test_ipxe_starts_as_a_kernel_of_grub(tenon):
    grub_disc(tenon.directory, '    linux16 /boot/ipxe.lkrn',
              [package('ipxe') / 'usr/lib/ipxe/ipxe.lkrn'])
    process = start(tenon, 'bios', '--memory', '128M', '--net', 'user,model=e1000e', '--cdrom',
                    'disc.iso')
    read_until(process, 'iPXE initialising devices...ok', PATIENCE)
    read_until(process, 'using 82574l', PATIENCE)


def test_grubs_rescue_disc(tenon):
    process = start(tenon, 'bios', '--memory', '128M', '--console', 'vga', '--cdrom',
                    package('grub-rescue-pc') / 'usr/lib/grub-rescue/grub-rescue-cdrom.iso',
                    stdin=subprocess.PIPE)
    watch = Watch(process)
    # A key that comes early waits in the BIOS: to the command line, past the menu.
    watch.expect('GRUB')
    watch.type(b'c')
    watch.expect('grub>')
    # Few at a time: the BIOS has room for 15.
    watch.type(b'echo 6$grub_cpu\r')
    watch.expect('6i386')
    # By ACPI, whose tables GRUB reads by itself.
    watch.type(b'halt\r')
    assert process.wait(PATIENCE) == 0, process.stderr.read()


@pytest.mark.parametrize('kind, program', [('bios', 'memtest86+x64.bin'),
                                           ('uefi', 'memtest86+x64.efi')], ids=['bios', 'uefi'])
def test_memtest_starts(tenon, kind, program):
    grub_disc(tenon.directory, '    linux /boot/%s console=ttyS0,115200' % program,
              [package('memtest86+') / 'boot' / program])
    process = start(tenon, kind, '--memory', '64M', '--cdrom', 'disc.iso')
    read_until(process, 'Errors: 0', PATIENCE)
    read_until(process, '[Moving inversions', PATIENCE)
