"""
VMDK: what Tenon writes QEMU reads, and the reverse, in every subformat; a killed writer.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import struct

import pytest

from vendor import SIZE, both_ways, compare, fill_and_read, killed, overlay

KINDS = ['monolithicSparse', 'monolithicFlat', 'twoGbMaxExtentSparse', 'twoGbMaxExtentFlat',
         'streamOptimized']


@pytest.mark.parametrize('kind', [*KINDS, 'monolithicSparse,adapter_type=lsilogic,hwversion=6'])
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


def descriptor(images, name, *changes):
    text = images.path(name).read_text()
    for old, new in changes:
        assert old in text
        text = text.replace(old, new)
    images.path(name).write_text(text)


def vmfs(images, raw, name):
    """A flat disk as ESX describes it: its extent lies on a VMFS and has no offset."""
    images.tenon('convert', '-f', 'raw', '-O', 'vmdk', '-o', 'subformat=monolithicFlat', raw, name + '.vmdk')
    descriptor(images, name + '.vmdk', ('"monolithicFlat"', '"vmfs"'), (' FLAT ', ' VMFS '), ('-flat.vmdk" 0', '-flat.vmdk"'))


def test_vmfs(images):
    images.mixed('a.raw', SIZE)
    images.mixed('b.raw', SIZE, seed=2)
    vmfs(images, 'a.raw', 'a')
    compare(images, 'a.raw', 'a.vmdk', 'vmdk')
    images.tenon('convert', '-n', '-f', 'raw', '-O', 'vmdk', 'b.raw', 'a.vmdk')
    compare(images, 'b.raw', 'a.vmdk', 'vmdk')
    assert images.info('a.vmdk')['format-specific']['data']['create-type'] == 'vmfs'


def test_snapshot_of_esx(images):
    """Its delta: some grains, their tables where one is needed, over a flat disk. For reading."""
    images.mixed('a.raw', SIZE)
    vmfs(images, 'a.raw', 'a')
    cid = images.path('a.vmdk').read_text().split('\nCID=')[1][:8]
    want = bytearray(images.path('a.raw').read_bytes())
    grain, entries = 8, 4096  # sectors; a table covers 16 MiB
    header = struct.pack('<4s7I', b'COWD', 1, 3, SIZE // 512, grain, 4, 2, 100)
    body = bytearray(16 * 512 + entries * 4)
    body[:len(header)] = header
    struct.pack_into('<2I', body, 4 * 512, 16, 0)  # the second table is not there
    for place in (0, 5, 3000, 4095):
        struct.pack_into('<I', body, 16 * 512 + 4 * place, len(body) // 512)
        body += bytes([place % 255 + 1]) * grain * 512
        want[place * grain * 512:(place + 1) * grain * 512] = bytes([place % 255 + 1]) * grain * 512
    images.path('d-delta.vmdk').write_bytes(body)
    images.path('d.vmdk').write_text(
        '# Disk DescriptorFile\nversion=1\nCID=12345678\nparentCID=%s\ncreateType="vmfsSparse"\n'
        'parentFileNameHint="a.vmdk"\nRW %d VMFSSPARSE "d-delta.vmdk"\n' % (cid, SIZE // 512))
    images.path('want.raw').write_bytes(want)
    compare(images, 'want.raw', 'd.vmdk', 'vmdk')
    done = images.tenon('convert', '-n', '-f', 'raw', '-O', 'vmdk', 'a.raw', 'd.vmdk', status=3)
    assert 'for reading' in done.stderr and images.path('d-delta.vmdk').read_bytes() == body
    images.tenon('map', '-f', 'vmdk', 'd-delta.vmdk')  # alone it is an image, too
    for cut in (4, 511, 2048, 16 * 512):
        images.path('d-delta.vmdk').write_bytes(body[:cut])
        for words in (('convert', '--force', '-f', 'vmdk', 'd.vmdk', 'out.raw'), ('check', '-f', 'vmdk', 'd-delta.vmdk')):
            done = images.tenon(*words, status=None)
            assert done.returncode in (1, 2) and done.stderr.count('\n') == 1, done


def test_killed(images):
    killed(images, 'vmdk', check=True)
