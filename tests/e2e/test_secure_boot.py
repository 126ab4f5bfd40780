"""
Secure Boot: what Debian has signed starts and the kernel knows it; a loader without a signature does
not.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import pathlib
import subprocess

import pytest

from conftest import ROOT, read_until
from test_firmware_disk import PATIENCE, choose_shell, disk  # noqa: F401

SIGNED = ('/usr/lib/shim/shimx64.efi.signed',
          '/usr/lib/grub/x86_64-efi-signed/grubx64.efi.signed')


def start(tenon, image):
    return tenon.start('run', '--accel', 'soft', '--firmware', 'secure', '--firmware-vars',
                       'vars.fd', '--disk', image, stdin=subprocess.PIPE)


def test_signed_starts(tenon, tmp_path, demo_guest):
    if not all(pathlib.Path(path).exists() for path in SIGNED):
        pytest.skip('packages shim-signed and grub-efi-amd64-signed are missing')
    image = tmp_path / 'disk.img'
    subprocess.run([ROOT / 'tools/disk-image', 'secure', image], check=True,
                   env=dict(os.environ, TENON_DEMO_CACHE=str(demo_guest.parent)))
    process = start(tenon, image)
    choose_shell(process)
    process.stdin.write(b'busybox dmesg | busybox grep -i secure; exit\n')
    process.stdin.flush()
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0, err
    assert b'Secure boot enabled' in out and b'locked down from EFI Secure Boot' in out, out


def test_unsigned_is_refused(tenon, disk):
    process = start(tenon, disk('uefi'))
    seen = read_until(process, 'Access Denied', timeout=PATIENCE)
    assert 'failed to load' in seen and 'GNU GRUB' not in seen
    process.kill()
