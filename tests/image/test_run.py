"""
Disks of a VM that are not raw: a guest on an overlay, and what is refused.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import pathlib
import re
import subprocess

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
TENON = pathlib.Path(os.environ.get('TENON_BUILD') or ROOT / 'build').resolve() / 'src/cmd/tenon'


def test_guest_on_an_overlay(images):
    """A Linux guest mounts ext4 on qcow2 over compressed qcow2, writes, and switches itself off."""
    guest = pathlib.Path(os.environ.get('TENON_DEMO_CACHE') or ROOT / '.cache/demo-guest') / 'cloud'
    if not (guest / 'initrd').exists():
        pytest.skip('no demonstration guest in %s: run tools/demo-guest' % guest)
    subprocess.run([ROOT / 'tools/demo-guest', 'disk', images.path('disk.raw')], check=True,
                   capture_output=True)
    images.qemu('convert', '-f', 'raw', '-O', 'qcow2', '-c', 'disk.raw', 'base.qcow2')
    images.tenon('create', '-f', 'qcow2', '-b', 'base.qcow2', '-F', 'qcow2', 'over.qcow2')
    before = images.path('base.qcow2').read_bytes()
    done = images.call(TENON, 'run', '--accel', 'soft', '--kernel', guest / 'vmlinuz', '--initrd',
                       guest / 'initrd', '--disk', 'over.qcow2', timeout=180)
    said = re.search(r'demo: checksum sha256 (\w{64})', done.stdout)
    assert said and 'FAILED' not in done.stdout, done.stdout[-3000:]
    images.sound('over.qcow2')
    images.tenon('convert', 'over.qcow2', 'after.raw')
    stored = images.call('debugfs', '-R', 'cat /checksum.sha256', 'after.raw').stdout
    assert stored.split()[0] == said.group(1)
    images.call('e2fsck', '-fn', 'after.raw')
    assert images.path('base.qcow2').read_bytes() == before


def test_raw_disk_with_a_header_of_a_guest(images):
    """First bytes alone do not decide what a disk is."""
    images.qemu('create', '-f', 'qcow2', 'disk.raw', '1M')
    (images.path('kernel')).write_bytes(b'x' * 4096)
    done = images.call(TENON, 'run', '--kernel', 'kernel', '--disk', 'disk.raw', status=2)
    assert 'add format=qcow2, or format=raw' in done.stderr
    images.qemu('create', '-f', 'qcow2', '-u', '-b', 'nbd:host:1', '-F', 'raw', 'a.qcow2', '1M')
    done = images.call(TENON, 'run', '--kernel', 'kernel', '--disk', 'a.qcow2,format=qcow2', status=1)
    assert 'it is not opened' in done.stderr
