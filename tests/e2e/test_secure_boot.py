"""
Secure Boot: what Debian has signed starts and the kernel knows it, and what the owner of a VM has
signed; what nobody has signed, or what is forbidden, does not. Each guest tries its disks in order.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import hashlib
import os
import re
import shutil
import subprocess

import pytest

from conftest import FIRMWARE, PATIENCE, ROOT, read_until
from test_firmware_disk import choose_shell
from test_firmware_keys import OWNER, make_key
from test_run_image import efi_image

SHIM = '/usr/lib/shim/shimx64.efi.signed'
GRUB = '/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed'
STUB = '/usr/lib/systemd/boot/efi/linuxx64.efi.stub'
IS_ON = 'Secure boot enabled'


def need(*files):
    missing = [path for path in (FIRMWARE['uefi'], *files) if not shutil.which(path, os.F_OK)]
    if missing:
        pytest.skip('missing (tools/install-deps test): %s' % missing)


def boot_disk(path, program):
    """A disk whose boot program is this file."""
    subprocess.run(['mcopy', '-i', '%s@@1M' % efi_image(path), program, '::EFI/BOOT/BOOTX64.EFI'],
                   check=True)


def unsigned_program(path):
    subprocess.run(['grub-mkimage', '-O', 'x86_64-efi', '-p', '/', '-o', path, 'echo'], check=True)


def start(tenon, *disks, first):
    words = [word for disk in disks for word in ('--disk', disk)] + ['--boot', first]
    return tenon.start('run', '--accel', 'soft', '--firmware', 'secure', '--firmware-vars',
                       'vars.fd', *words, stdin=subprocess.PIPE)


def refused(text):
    return len(re.findall('failed to load Boot.*: Access Denied', text))


def test_what_debian_has_signed_starts(tenon, tmp_path, demo_guest):
    need(SHIM, GRUB, 'mcopy', 'grub-mkimage')
    unsigned_program(tmp_path / 'unsigned.efi')
    boot_disk(tmp_path / 'unsigned.img', tmp_path / 'unsigned.efi')
    subprocess.run([ROOT / 'tools/disk-image', 'secure', tmp_path / 'disk.img'], check=True,
                   env=dict(os.environ, TENON_DEMO_CACHE=str(demo_guest.parent)))
    process = start(tenon, 'disk.img,id=signed', 'unsigned.img,id=unsigned', first='unsigned,signed')
    assert refused(choose_shell(process)) == 1
    process.stdin.write(b'busybox dmesg | busybox grep -i secure; exit\n')
    process.stdin.flush()
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    out = out.decode(errors='replace')
    assert IS_ON in out and 'locked down from EFI Secure Boot' in out, out


SHOW = b'''
dmesg | grep -i secure
insmod /efivarfs.ko
mount -t efivarfs efivarfs /sys/firmware/efi/efivars
for name in PK KEK db; do
    echo "$name: $(tail -c +5 /sys/firmware/efi/efivars/$name-* | sha256sum)"
done
exit
'''


def kernel_image(folder, demo_guest):
    """Kernel, command line and initramfs as one EFI program (a unified kernel image)."""
    module = next(demo_guest.joinpath('modules').rglob('efivarfs.ko'))
    archive = subprocess.run(['cpio', '-o', '-H', 'newc', '--quiet'], cwd=module.parent,
                             input=b'efivarfs.ko', check=True, capture_output=True).stdout
    (folder / 'initrd').write_bytes((demo_guest / 'initrd').read_bytes() + archive)
    (folder / 'cmdline').write_text('console=ttyS0 quiet tenon.demo=shell')
    sections = (('.cmdline', folder / 'cmdline', 0x30000),
                ('.linux', demo_guest / 'vmlinuz', 0x2000000),
                ('.initrd', folder / 'initrd', 0x4000000))
    words = [word for name, path, at in sections for word in (
        '--add-section', '%s=%s' % (name, path), '--change-section-vma', '%s=%#x' % (name, at))]
    subprocess.run(['objcopy', *words, STUB, folder / 'kernel.efi'], check=True)
    return folder / 'kernel.efi'


def test_keys_of_ones_own(tenon, tmp_path, demo_guest):
    """
    Microsoft's shim is nobody here; a program with the right signature may still be forbidden. The
    guest finds the very lists that efitools make.
    """
    need(SHIM, STUB, 'cert-to-efi-sig-list', 'sbsign', 'objcopy', 'mcopy', 'grub-mkimage', 'cpio')
    certificates = {name: make_key(tmp_path, name) for name in ('owner', 'signer')}
    unsigned_program(tmp_path / 'forbidden.efi')
    for program in (kernel_image(tmp_path, demo_guest), tmp_path / 'forbidden.efi'):
        subprocess.run(['sbsign', '--key', 'signer.key', '--cert', 'signer.pem', '--output',
                        program, program], cwd=tmp_path, check=True, capture_output=True)
    enrolled = tenon.run('firmware', 'enroll', './vars.fd', '--clear', '--pk', 'owner.pem', '--kek',
                         'owner.pem', '--db', 'signer.pem', '--dbx', 'forbidden.efi')
    assert enrolled.returncode == 0, enrolled.stderr
    for name, program in (('shim', SHIM), ('forbidden', 'forbidden.efi'), ('kernel', 'kernel.efi')):
        boot_disk(tmp_path / (name + '.img'), tmp_path / program)
    process = start(tenon, 'shim.img', 'forbidden.img', 'kernel.img', first='disk')
    seen = read_until(process, 'demo: a shell', timeout=PATIENCE)
    process.stdin.write(SHOW)
    process.stdin.flush()
    out, err = process.communicate(timeout=PATIENCE)
    out = out.decode(errors='replace').replace('\r', '')
    assert process.returncode == 0, (out[-2000:], err)
    assert refused(seen) == 2 and IS_ON in out, seen + out
    for name, subject in (('PK', 'owner'), ('KEK', 'owner'), ('db', 'signer')):
        subprocess.run(['cert-to-efi-sig-list', '-g', OWNER, subject + '.pem', 'list'],
                       cwd=tmp_path, check=True)
        contents = hashlib.sha256((tmp_path / 'list').read_bytes()).hexdigest()
        assert '%s: %s' % (name, contents) in out, out
    # The store as the guest leaves it has what the guest read.
    again = tenon.run('firmware', 'show', 'vars.fd')
    assert again.stdout.splitlines()[1:] == enrolled.stdout.splitlines()[1:]
    assert 'Secure Boot is on' in again.stdout
    assert hashlib.sha256(certificates['owner']).hexdigest() in again.stdout
