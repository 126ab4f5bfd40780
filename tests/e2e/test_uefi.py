"""
What UEFI firmware remembers and whom it asks: boot entries that a guest wrote with efibootmgr, and the
boot order of the command line.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import re
import shutil
import subprocess

import pytest

from conftest import FIRMWARE, PATIENCE, e2fsprogs, read_until
from test_firmware_disk import DOWN, ENTER, start
from test_run_image import efi_image

ENTRY = 'Entry of a guest'


def speaking_disk(tenon, name):
    """A disk whose boot program says its name and switches off."""
    if not shutil.which('grub-mkimage') or not os.path.exists(FIRMWARE['uefi']):
        pytest.skip('packages grub-common, grub-efi-amd64-bin and ovmf are needed')
    image = efi_image(tenon.directory / (name + '.img'))
    (tenon.directory / 'early.cfg').write_text('echo started from %s\nhalt\n' % name)
    program = tenon.directory / 'program.efi'
    subprocess.run(['grub-mkimage', '-O', 'x86_64-efi', '-p', '/', '-c',
                    tenon.directory / 'early.cfg', '-o', program, 'echo', 'halt'], check=True)
    subprocess.run(['mcopy', '-i', '%s@@1M' % image, program, '::EFI/BOOT/BOOTX64.EFI'], check=True)


def test_boot_order(tenon):
    for name in 'abc':
        speaking_disk(tenon, name)
    words = ('run', '--accel', 'soft', '--firmware', 'uefi', '--firmware-vars', 'vars.fd', '--disk',
             'a.img,id=a', '--disk', 'b.img,id=b,bus=ahci', '--disk', 'c.img,id=c,bus=usb')
    # The store keeps entries of the starts before: they do not decide.
    for flags, first in (((), 'a'), (('--boot', 'b'), 'b'), (('--boot', 'c'), 'c'),
                         (('--boot-once', 'a'), 'a')):
        result = tenon.run(*words, *flags, timeout=PATIENCE)
        assert result.returncode == 0, (result.stdout[-2000:], result.stderr)
        assert re.findall('started from (.)', result.stdout)[0] == first, (flags, result.stdout)


def test_a_guests_boot_entry_survives(tenon, tmp_path, demo_guest, disk):
    efibootmgr = shutil.which('efibootmgr', path='/usr/bin:/usr/sbin:/sbin:/bin')
    if not efibootmgr:
        pytest.skip('efibootmgr is missing (package efibootmgr)')
    image, files = disk('uefi'), tmp_path / 'files'
    files.mkdir()
    listing = subprocess.run(['ldd', efibootmgr], check=True, capture_output=True, text=True).stdout
    for path in [efibootmgr, next(demo_guest.joinpath('modules').rglob('efivarfs.ko')),
                 *re.findall(r'(/\S+) \(0x', listing)]:
        shutil.copy(path, files)
    tools = tenon.disk('tools.img', 32 << 20)
    assert e2fsprogs('mke2fs', '-q', '-t', 'ext4', '-d', str(files), tools).returncode == 0

    process = start(tenon, tmp_path, 'uefi', image, '--disk', tools, stdin=subprocess.PIPE)

    def say(words, answer):
        process.stdin.write(words)
        process.stdin.flush()
        return read_until(process, answer, timeout=PATIENCE)
    read_until(process, 'with shell', timeout=PATIENCE)
    say(DOWN, '*Tenon, with shell')
    say(ENTER, 'disk: a shell')
    say(b'cd /tmp; busybox mkdir d; busybox mount -o ro /dev/vdb d; cd d; busybox insmod efivarfs.ko;'
        b' busybox mount -t efivarfs efivarfs /sys/firmware/efi/efivars; ./ld-linux-x86-64.so.2'
        b' --library-path . ./efibootmgr -c -d /dev/vda -p 1 -L "%s"'
        b" -l '\\EFI\\BOOT\\BOOTX64.EFI'; echo LIS\"\"TED\n" % ENTRY.encode(), 'LISTED')
    process.stdin.write(b'exit\n')
    process.stdin.flush()
    assert process.wait(PATIENCE) == 0

    process = start(tenon, tmp_path, 'uefi', image)
    text = read_until(process, 'with shell', timeout=PATIENCE)
    assert re.findall('BdsDxe: starting Boot.{4} "([^"]*)"', text) == [ENTRY], text
    process.kill()
