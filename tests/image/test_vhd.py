"""
VHD: what Tenon writes QEMU reads, and the reverse; sizes by geometry; a killed writer, whose footer repair writes.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import pytest

from vendor import both_ways, fill_and_read, killed, overlay


@pytest.mark.parametrize('options', ['subformat=dynamic,force_size=on', 'subformat=fixed,force_size=on'])
def test_both_ways(images, options):
    both_ways(images, 'vpc', options, check=False)


def test_filled_by_both(images):
    fill_and_read(images, 'vpc', 'subformat=dynamic')


def test_geometry_of_qemu(images):
    """Without force_size QEMU rounds up to a geometry, and both read the size from that."""
    images.qemu('create', '-f', 'vpc', 'a.vhd', '100M')
    assert images.info('a.vhd', '-f', 'vpc')['virtual-size'] == 104865792
    images.tenon('create', '-f', 'vpc', '-o', 'force_size=off', 'b.vhd', '100M')
    assert images.info('b.vhd', '-f', 'vpc')['virtual-size'] == 104865792


def test_differencing(images):
    overlay(images, 'vpc', '.vhd', qemu_reads=False)


def test_killed(images):
    killed(images, 'vpc', check=False, repair=True)
