"""
Images that lie: each ends in a sentence and an exit status, or in what can be read of it; no signal, no endless
loop, no gigabytes, and the file stays as it was.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import resource

import pytest

MIB = 1 << 20
CLUSTER = 65536

# Where the fields of a qcow2 header lie: offset, bytes.
QCOW2 = {'version': (4, 4), 'backing_offset': (8, 8), 'backing_length': (16, 4), 'cluster_bits': (20, 4), 'size': (24, 8),
         'crypt': (32, 4), 'l1_size': (36, 4), 'l1': (40, 8), 'reftable': (48, 8), 'reftable_clusters': (56, 4),
         'snapshot_count': (60, 4), 'snapshots': (64, 8), 'incompatible': (72, 8), 'order': (96, 4), 'header': (100, 4)}

LIES = [
    {'version': 7}, {'cluster_bits': 8}, {'cluster_bits': 22}, {'cluster_bits': 63}, {'cluster_bits': 0xffffffff},
    {'size': (1 << 63) - 1}, {'size': (1 << 64) - 1}, {'l1_size': 0xffffffff}, {'l1_size': 0},
    {'l1': 1 << 63}, {'l1': (1 << 56) - CLUSTER}, {'l1': 1}, {'l1': 0},
    {'l1_size': 0xffffffff, 'size': (1 << 63) - CLUSTER, 'cluster_bits': 21},
    {'reftable': 0}, {'reftable': 1 << 62}, {'reftable_clusters': 0xffffffff}, {'reftable_clusters': 0},
    {'snapshot_count': 0xffffffff}, {'snapshot_count': 3, 'snapshots': 1 << 60}, {'snapshot_count': 9, 'snapshots': 0},
    {'incompatible': 1 << 40}, {'incompatible': 4}, {'incompatible': 16, 'cluster_bits': 9}, {'incompatible': 8},
    {'order': 7}, {'order': 0xffffffff}, {'header': 0}, {'header': 0xffffffff}, {'crypt': 1}, {'crypt': 2}, {'crypt': 9},
    {'backing_offset': 1 << 40, 'backing_length': 10}, {'backing_offset': 200, 'backing_length': 0xffffffff},
]


def limits():
    resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
    resource.setrlimit(resource.RLIMIT_CPU, (30, 30))


def survive(images, name, image_format, verbs=('info', 'check', 'map', 'convert')):
    before = images.path(name).read_bytes()
    for verb in verbs:
        words = (verb, '-f', image_format, name)
        if verb == 'convert':
            words = ('convert', '--force', '-O', 'qcow2', *words[1:], 'out.qcow2')
        done = images.tenon(*words, status=None, preexec_fn=limits)
        assert done.returncode in (0, 1, 2, 3), (words, done.returncode, done.stderr)
        if done.returncode == 1 and words[0] != 'check':  # which says what it could not look at
            assert name in done.stderr and len(done.stderr.splitlines()) == 1, done.stderr
        assert done.returncode == 0 or done.stderr + done.stdout, words
    assert images.path(name).read_bytes() == before


def make(images):
    images.tenon('create', '-f', 'qcow2', 'a.qcow2', '16M')
    images.io('a.qcow2', 'write -P 1 0 200k', 'write -P 2 8M 64k')
    return bytearray(images.path('a.qcow2').read_bytes())


def be(data, at, size):
    return int.from_bytes(data[at:at + size], 'big')


@pytest.mark.parametrize('lie', LIES, ids=lambda lie: ','.join('%s=%#x' % pair for pair in lie.items()))
def test_header(images, lie):
    data = make(images)
    for field, value in lie.items():
        at, size = QCOW2[field]
        data[at:at + size] = value.to_bytes(size, 'big')
    images.path('a.qcow2').write_bytes(data)
    survive(images, 'a.qcow2', 'qcow2')


@pytest.mark.parametrize('table', ['l1', 'l2', 'reftable', 'refblock'])
def test_tables_in_a_ring(images, table):
    """Tables that name themselves, each other, the header, and what is behind the end."""
    good = make(images)
    places = {'l1': be(good, 40, 8), 'reftable': be(good, 48, 8)}
    places['l2'] = be(good, places['l1'], 8) & 0xfffffffffffe00
    places['refblock'] = be(good, places['reftable'], 8)
    for target in [*places.values(), 0, len(good), 1 << 55, 512]:
        data = bytearray(good)
        for entry in range(2):
            at = places[table] + entry * 8
            data[at:at + 8] = (target | (1 << 63 if table in ('l1', 'l2') else 0)).to_bytes(8, 'big')
        images.path('a.qcow2').write_bytes(data)
        survive(images, 'a.qcow2', 'qcow2')
        # A writer may refuse; it never writes over the tables that it read.
        images.call('cp', 'a.qcow2', 'w.qcow2')
        done = images.tenon('bench', '-w', '-q', '-f', 'qcow2', '-c', '20', '-d', '2', '-s', '4096', 'w.qcow2', status=None,
                            preexec_fn=limits)
        assert done.returncode in (0, 1), done.stderr
        assert images.path('w.qcow2').read_bytes()[:20] == bytes(good[:20])


def test_backing_in_a_ring(images):
    images.tenon('create', '-f', 'qcow2', 'a.qcow2', '1M')
    images.tenon('create', '-f', 'qcow2', '-b', 'a.qcow2', '-F', 'qcow2', 'b.qcow2')
    images.qemu('rebase', '-u', '-b', 'b.qcow2', '-F', 'qcow2', 'a.qcow2')
    for words in (('convert', '-O', 'raw', 'b.qcow2', 'out.raw'), ('compare', 'a.qcow2', 'b.qcow2'),
                  ('info', '--backing-chain', 'b.qcow2')):
        done = images.tenon(*words, status=None, preexec_fn=limits)
        assert done.returncode in (1, 2) and done.stderr, (words, done)


@pytest.mark.parametrize('image_format', ['qcow2', 'vdi', 'vpc', 'vhdx', 'vmdk'])
def test_cut_off(images, image_format):
    images.mixed('a.raw', 4 * MIB)
    images.tenon('convert', '-f', 'raw', '-O', image_format, 'a.raw', 'whole.img')
    data = images.path('whole.img').read_bytes()
    for length in [0, 1, 511, 512, 4096, 65536, 70000, len(data) // 3, len(data) // 2, len(data) - 512, len(data) - 1]:
        images.path('a.img').write_bytes(data[:length])
        survive(images, 'a.img', image_format)
