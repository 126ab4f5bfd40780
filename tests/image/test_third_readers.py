"""
Readers that are neither QEMU's nor ours agree on what Tenon writes: 7-Zip, and the libraries of libyal over FUSE.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import shutil
import subprocess

import pytest

MAP = {'vpc': 'vhd'}
KINDS = ['qcow2', 'qcow2 -c', 'qcow2 -o cluster_size=4k',
         'vmdk -o subformat=monolithicSparse', 'vmdk -o subformat=streamOptimized', 'vpc -o subformat=dynamic',
         'vpc -o subformat=fixed', 'vhdx', 'vhdx -o subformat=fixed', 'vdi']
MOUNTERS = {'vmdk': 'vmdkmount', 'vpc': 'vhdimount', 'vhdx': 'vhdimount', 'qcow2': 'qcowmount'}


def made(images, kind):
    """An image that was copied into and then written again, its format, and what it holds."""
    image_format, *options = kind.split()
    name = 'a.' + MAP.get(image_format, image_format)
    images.mixed('a.raw', 24 << 20)
    images.tenon('convert', '-f', 'raw', '-O', image_format, *options, 'a.raw', name)
    if 'streamOptimized' not in kind:
        images.tenon('bench', '-w', '-q', '-f', image_format, '-c', '50', '-s', '4096', '-S', '69632',
                     '--pattern', '9', name)
        images.tenon('convert', '--force', '-f', image_format, '-O', 'raw', name, 'a.raw')
    return name, image_format


@pytest.mark.parametrize('kind', KINDS)
def test_seven_zip(images, kind):
    program = shutil.which('7zz')
    if not program:
        pytest.skip('7zz is missing (package 7zip)')
    name, _ = made(images, kind)
    images.call(program, 'e', '-y', '-oout', name)
    found, = images.path('out').iterdir()
    images.call('cmp', found, 'a.raw')


@pytest.mark.parametrize('kind', [kind for kind in KINDS if kind.split()[0] in MOUNTERS])
def test_libyal(images, kind):
    program = shutil.which(MOUNTERS[kind.split()[0]])
    if not program:
        pytest.skip('%s is missing (packages libvmdk-utils, libvhdi-utils, libqcow-utils)' % MOUNTERS[kind.split()[0]])
    if os.geteuid() or not os.access('/dev/fuse', os.R_OK | os.W_OK):
        pytest.skip('mounting by FUSE needs root and /dev/fuse')
    name, _ = made(images, kind)
    place = images.path('mounted')
    place.mkdir()
    images.call(program, name, place)
    try:
        found, = place.iterdir()
        images.call('cmp', found, 'a.raw')
    finally:
        subprocess.run(['umount', place], check=True)
