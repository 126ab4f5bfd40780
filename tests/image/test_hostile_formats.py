"""
Images of other vendors, and LUKS, that lie in their headers and tables, and overlays whose chain is a ring: each ends
in a sentence and an exit status, or in what can be read of it.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import struct
import uuid

import pytest

from test_hostile import MIB, limits, survive


def make(images, image_format, *options):
    """An image with something in it, as bytes."""
    images.mixed('a.raw', 4 * MIB)
    images.tenon('convert', '-f', 'raw', '-O', image_format, *options, 'a.raw', 'good.img')
    return bytearray(images.path('good.img').read_bytes())


def try_lie(images, image_format, data):
    images.path('a.img').write_bytes(data)
    survive(images, 'a.img', image_format, ('check', 'convert'))
    # A writer may refuse, or write into what it believes to be the image; it ends, by itself.
    done = images.tenon('bench', '-w', '-q', '-f', image_format, '-c', '20', '-d', '2', '-s', '4096', 'a.img',
                        status=None, preexec_fn=limits)
    assert 0 <= done.returncode <= 4, (done.returncode, done.stderr)


def fit(value, form):
    return value & ((1 << 8 * struct.calcsize(form)) - 1)


def put(data, at, form, value):
    struct.pack_into(form, data, at, fit(value, form))


def odd(form):
    """Values that a field of this form had better not have."""
    values = [0, 1, 3, 1 << 31, (1 << 32) - 1, 1 << 62, (1 << 63) - 1, -1]
    return sorted({fit(value, form) for value in values})



VDI = {'version': (0x44, '<I'), 'header size': (0x48, '<I'), 'type': (0x4c, '<I'), 'table': (0x154, '<I'),
       'data': (0x158, '<I'), 'sector size': (0x168, '<I'), 'size': (0x170, '<Q'), 'block size': (0x178, '<I'),
       'extra': (0x17c, '<I'), 'blocks': (0x180, '<I'), 'allocated': (0x184, '<I'), 'first block': (512, '<I')}


@pytest.mark.parametrize('field', VDI)
def test_vdi(images, field):
    good = make(images, 'vdi')
    for value in odd(VDI[field][1]):
        data = bytearray(good)
        put(data, *VDI[field], value)
        try_lie(images, 'vdi', data)


VMDK = {'version': (4, '<I'), 'flags': (8, '<I'), 'capacity': (12, '<Q'), 'grain': (20, '<Q'), 'descriptor': (28, '<Q'),
        'descriptor size': (36, '<Q'), 'entries': (44, '<I'), 'second directory': (48, '<Q'), 'directory': (56, '<Q'),
        'overhead': (64, '<Q'), 'compression': (77, '<H')}


@pytest.mark.parametrize('kind', ['monolithicSparse', 'streamOptimized'])
@pytest.mark.parametrize('field', VMDK)
def test_vmdk(images, field, kind):
    good = make(images, 'vmdk', '-o', 'subformat=' + kind)
    at, form = VMDK[field]
    if kind == 'streamOptimized':
        at += len(good) - 1024  # where the header is that counts
    for value in odd(form):
        data = bytearray(good)
        put(data, at, form, value)
        try_lie(images, 'vmdk', data)


def test_vmdk_tables_in_a_ring(images):
    good = make(images, 'vmdk')
    directory, = struct.unpack_from('<Q', good, 56)
    table, = struct.unpack_from('<I', good, directory * 512)
    for target in (directory, table, 0xffffffff, 1):
        for at in (directory * 512, table * 512):
            data = bytearray(good)
            put(data, at, '<I', target)
            try_lie(images, 'vmdk', data)


EXTENTS = ['RW 8192 FLAT "../outside" 0', 'RW 8192 FLAT "/etc/passwd" 0', 'RW 8192 FLAT "a.img" 0',
           'RW 8192 SPARSE "a.img"', 'RW 18446744073709551615 FLAT "a.raw" 0', 'RW 8192 FLAT "a.raw" 18446744073709551615',
           'RW 8192 FLAT "a.raw" 99999999', 'RW 99999999999999999999 ZERO', 'RW 0 FLAT "a.raw" 0', 'RW -1 FLAT "a.raw" 0',
           'RW 8192 FLAT', 'RW 8192 FLAT "a.raw', 'RW 8192 FLAT "' + 'x' * 5000 + '" 0', 'RW 8192 SESPARSE "a.raw"',
           'RW 137438953472 ZERO\n' * 3, 'RW 1 ZERO\n' * 20000, '']


@pytest.mark.parametrize('lines', EXTENTS, ids=lambda lines: lines[:40] or 'none')
def test_vmdk_descriptor(images, lines):
    images.mixed('a.raw', 4 * MIB)
    secret = images.path('../outside')
    secret.write_bytes(b'secret' * (MIB // 2))
    text = '# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType="monolithicFlat"\n' + lines
    try_lie(images, 'vmdk', text.encode())
    assert not images.path('out.qcow2').exists() or b'secretsecret' not in images.path('out.qcow2').read_bytes()
    secret.unlink()


def vhd_sum(data, at, length, field):
    put(data, at + field, '>I', 0)
    put(data, at + field, '>I', ~sum(data[at:at + length]))


VHD = {'features': (8, '>I'), 'version': (12, '>I'), 'header': (16, '>Q'), 'size': (48, '>Q'), 'type': (60, '>I')}
VHD_HEADER = {'table': (16, '>Q'), 'version': (24, '>I'), 'entries': (28, '>I'), 'block size': (32, '>I')}


@pytest.mark.parametrize('field', [*VHD, *('header ' + field for field in VHD_HEADER)])
def test_vhd(images, field):
    good = make(images, 'vpc')
    at, form = VHD[field] if field in VHD else VHD_HEADER[field.removeprefix('header ')]
    for value in odd(form):
        data = bytearray(good)
        if field in VHD:
            for footer in (0, len(data) - 512):
                put(data, footer + at, form, value)
                vhd_sum(data, footer, 512, 64)
        else:
            put(data, 512 + at, form, value)
            vhd_sum(data, 512, 1024, 36)
        try_lie(images, 'vpc', data)


def test_vhd_table(images):
    good = make(images, 'vpc')
    table, = struct.unpack_from('>Q', good, 512 + 16)
    for sector in (0, 1, table // 512, len(good) // 512 - 1, 0xfffffffe, 0x7fffffff):
        data = bytearray(good)
        put(data, table, '>I', sector)
        put(data, table + 4, '>I', sector)
        try_lie(images, 'vpc', data)


def crc32c(data):
    table = []
    for i in range(256):
        for _ in range(8):
            i = i >> 1 ^ (0x82f63b78 if i & 1 else 0)
        table.append(i)
    crc = 0xffffffff
    for byte in data:
        crc = crc >> 8 ^ table[(crc ^ byte) & 255]
    return crc ^ 0xffffffff


def vhdx_sum(data, at, length):
    put(data, at + 4, '<I', 0)
    put(data, at + 4, '<I', crc32c(data[at:at + length]))


REGIONS = {'block table': uuid.UUID('2dc27766-f623-4200-9d64-115e9bfd4a08'),
           'metadata': uuid.UUID('8b7ca206-4790-4b9a-b8fe-575f050f886e')}
ITEMS = {'block size': (uuid.UUID('caa16737-fa36-4d43-b3b6-33f0aa44e76b'), '<I'),
         'size': (uuid.UUID('2fa54224-cd1b-4876-b211-5dbed83bf4b8'), '<Q'),
         'sector size': (uuid.UUID('8141bf1d-a96f-4709-ba47-f233a8faab5f'), '<I')}


@pytest.mark.parametrize('field', ITEMS)
def test_vhdx_metadata(images, field):
    good = make(images, 'vhdx')
    guid, form = ITEMS[field]
    metadata = struct.unpack_from('<Q', good, good.index(REGIONS['metadata'].bytes_le, 192 << 10) + 16)[0]
    entry = good.index(guid.bytes_le, metadata)
    at = metadata + struct.unpack_from('<I', good, entry + 16)[0]
    for value in odd(form):
        data = bytearray(good)
        put(data, at, form, value)
        try_lie(images, 'vhdx', data)
    for value in odd('<I'):
        data = bytearray(good)
        put(data, entry + 16, '<I', value)
        put(data, entry + 20, '<I', value)
        try_lie(images, 'vhdx', data)


@pytest.mark.parametrize('region', REGIONS)
def test_vhdx_regions(images, region):
    good = make(images, 'vhdx')
    for value in (0, 1, MIB, 1 << 40, -1):
        for field, form in ((16, '<Q'), (24, '<I')):
            data = bytearray(good)
            for table in (192 << 10, 256 << 10):
                put(data, data.index(REGIONS[region].bytes_le, table) + field, form, value)
                vhdx_sum(data, table, 64 << 10)
            try_lie(images, 'vhdx', data)


LUKS = {'version': (6, '>H'), 'payload': (104, '>I'), 'key bytes': (108, '>I'), 'iterations': (164, '>I'),
        'slot state': (208, '>I'), 'slot iterations': (212, '>I'), 'slot material': (248, '>I'),
        'slot stripes': (252, '>I')}


@pytest.mark.parametrize('field', LUKS)
def test_luks(images, field):
    """Without its passphrase: what the header says is looked at before anybody is asked."""
    images.path('key').write_bytes(b'secret')
    images.tenon('create', '-f', 'luks', '--key-file', 'key', '-o', 'iter-time=10', 'good.img', '1M')
    good = bytearray(images.path('good.img').read_bytes())
    for value in odd(LUKS[field][1]):
        data = bytearray(good)
        put(data, *LUKS[field], value)
        images.path('a.img').write_bytes(data)
        for words in (('info', 'a.img'), ('convert', '--force', '-f', 'luks', '--key-file', 'key', 'a.img', 'out.raw')):
            done = images.tenon(*words, status=None, preexec_fn=limits)
            assert done.returncode in (0, 1, 2, 3), (words, value, done.returncode, done.stderr)
            assert not done.returncode or len(done.stderr.splitlines()) == 1, done.stderr
        assert images.path('a.img').read_bytes() == data


@pytest.mark.parametrize('image_format', ['qcow2', 'vmdk', 'vpc', 'vhdx'])
def test_backing_of_itself(images, image_format):
    """An overlay takes the place of the image that it lies over."""
    images.tenon('create', '-f', image_format, 'base.img', '4M')
    images.tenon('create', '-f', image_format, '-b', 'base.img', '-F', image_format, 'over.img')
    before = images.path('over.img').read_bytes()
    images.path('base.img').write_bytes(before)
    for words in (('convert', '-f', image_format, 'over.img', 'out.raw'), ('map', '-f', image_format, 'base.img'),
                  ('commit', '-d', '-f', image_format, 'over.img')):
        done = images.tenon(*words, status=1, preexec_fn=limits)
        assert 'comes back' in done.stderr and done.stderr.count('\n') == 1, (words, done.stderr)
    assert images.path('over.img').read_bytes() == images.path('base.img').read_bytes() == before
