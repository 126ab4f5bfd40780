"""
VHDX: what Tenon writes QEMU reads, and the reverse; a killed writer, whose log QEMU replays too.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import pytest

from vendor import both_ways, fill_and_read, killed, overlay


@pytest.mark.parametrize('options', ['subformat=dynamic', 'subformat=fixed', 'block_size=1M',
                                     'block_state_zero=off', 'log_size=2M'])
def test_both_ways(images, options):
    both_ways(images, 'vhdx', options, check=True)


def test_filled_by_both(images):
    fill_and_read(images, 'vhdx', 'block_size=1M')


def test_differencing(images):
    overlay(images, 'vhdx', '.vhdx', qemu_reads=False)


def test_killed(images):
    killed(images, 'vhdx', check=True, repair=True)
