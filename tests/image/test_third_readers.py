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


def mounted_same(images, image_format, name, raw):
    """One of the disks that the image of this format shows, mounted, holds the same as the raw file."""
    program = shutil.which(MOUNTERS[image_format])
    if not program:
        pytest.skip('%s is missing (packages libvmdk-utils, libvhdi-utils, libqcow-utils)' % MOUNTERS[image_format])
    if os.geteuid() or not os.access('/dev/fuse', os.R_OK | os.W_OK):
        pytest.skip('mounting by FUSE needs root and /dev/fuse')
    place = images.path('mounted')
    place.mkdir()
    images.call(program, name, place)
    try:
        top = sorted(place.iterdir())[-1]
        images.call('cmp', top, raw)
    finally:
        subprocess.run(['umount', place], check=True)


@pytest.mark.parametrize('kind', KINDS)
def test_readers(images, kind):
    program = shutil.which('7zz')
    if not program:
        pytest.skip('7zz is missing (package 7zip)')
    name, image_format = made(images, kind)
    images.call(program, 'e', '-y', '-oout', name)
    found, = images.path('out').iterdir()
    images.call('cmp', found, 'a.raw')
    if image_format in MOUNTERS:
        mounted_same(images, image_format, name, 'a.raw')


def test_libyal_differencing(images):
    """
    VHD, in whole bytes of its bitmap: where some of eight sectors are the parent's, the library shows zeros. Of VHDX it
    looks for a parent by its path on Windows alone.
    """
    images.mixed('a.raw')
    images.tenon('convert', '-f', 'raw', '-O', 'vpc', 'a.raw', 'base.vhd')
    images.tenon('create', '-f', 'vpc', '-b', 'base.vhd', '-F', 'vpc', 'top.vhd')
    images.tenon('bench', '-w', '-q', '-f', 'vpc', '-c', '50', '-s', '4096', '-S', '69632', '--pattern', '9', 'top.vhd')
    images.tenon('convert', '-f', 'vpc', '-O', 'raw', 'top.vhd', 'top.raw')
    assert images.call('cmp', 'a.raw', 'top.raw', status=None).returncode == 1
    mounted_same(images, 'vpc', 'top.vhd', 'top.raw')
