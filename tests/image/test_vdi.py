"""
VDI: what Tenon writes QEMU reads, and the reverse; a killed writer.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import pytest

from vendor import both_ways, fill_and_read, killed


@pytest.mark.parametrize('options', ['static=off', 'static=on'])
def test_both_ways(images, options):
    both_ways(images, 'vdi', options, check=True)


def test_filled_by_both(images):
    fill_and_read(images, 'vdi', 'static=off')


def test_killed(images):
    killed(images, 'vdi', check=True)
