"""
VMDK: what Tenon writes QEMU reads, and the reverse, in every subformat; a killed writer.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import pytest

from vendor import both_ways, fill_and_read, killed, overlay

KINDS = ['monolithicSparse', 'monolithicFlat', 'twoGbMaxExtentSparse', 'twoGbMaxExtentFlat',
         'streamOptimized']


@pytest.mark.parametrize('kind', KINDS)
def test_both_ways(images, kind):
    both_ways(images, 'vmdk', 'subformat=' + kind, check=True)


@pytest.mark.parametrize('kind', KINDS[:4])
def test_filled_by_both(images, kind):
    fill_and_read(images, 'vmdk', 'subformat=' + kind)


def test_stream_is_compressed(images):
    images.path('a.raw').write_bytes(b'the same again ' * 500000)
    images.tenon('convert', '-f', 'raw', '-O', 'vmdk', '-o', 'subformat=streamOptimized', 'a.raw',
                 'a.vmdk')
    assert images.path('a.vmdk').stat().st_size < 500000
    images.same('a.raw', 'a.vmdk')


def test_backing(images):
    overlay(images, 'vmdk', '.vmdk', qemu_reads=True)


def test_killed(images):
    killed(images, 'vmdk', check=True)
