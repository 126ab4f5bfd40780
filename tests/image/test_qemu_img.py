"""
Called as qemu-img: command lines that scripts use, run by both programs in folders of their own. Exit
status, JSON and the contents of what comes out have to be equal.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import os
import shlex

import pytest

from conftest import BUILD, Images

# Each line runs in order in the same folder; "!" before it: it has to fail (with either's status).
SCRIPTS = {
    'overlay': '''
        create -f raw base.raw 8M
        io base.raw write -P 9 0 64k
        create -q -f qcow2 -b base.raw -F raw over.qcow2
        create -f qcow2 -F raw -b base.raw over2.qcow2 16M
        info over.qcow2
        info --output=json over.qcow2
        info --backing-chain --output json over.qcow2
        io over.qcow2 write -P 1 1M 1M
        map --output=json over.qcow2
        map -f qcow2 --output json --start-offset=1M --max-length=1M over.qcow2
        commit -p over.qcow2
        compare -f raw -F qcow2 base.raw over.qcow2
        map --output=json over.qcow2
        rebase -u -b '' over.qcow2
        info --output=json over.qcow2
        ''',
    'rebase': '''
        create -f qcow2 a.qcow2 4M
        io a.qcow2 write -P 1 0 4M
        create -f qcow2 b.qcow2 4M
        io b.qcow2 write -P 1 0 2M
        io b.qcow2 write -P 2 2M 1M
        create -f qcow2 -b a.qcow2 -F qcow2 c.qcow2
        io c.qcow2 write -P 3 3M 64k
        convert -O raw c.qcow2 before.raw
        rebase -b b.qcow2 -F qcow2 c.qcow2
        compare before.raw c.qcow2
        check c.qcow2
        rebase -p -b '' c.qcow2
        compare before.raw c.qcow2
        ! compare a.qcow2 b.qcow2
        ! rebase -b missing.qcow2 -F qcow2 c.qcow2
        ''',
    'commit into a base': '''
        create -f qcow2 0.qcow2 2M
        create -f qcow2 -b 0.qcow2 -F qcow2 1.qcow2
        create -f qcow2 -b 1.qcow2 -F qcow2 2.qcow2 3M
        io 0.qcow2 write -P 1 0 2M
        io 1.qcow2 write -P 2 512k 512k
        io 2.qcow2 write -P 3 2M 1M
        io 2.qcow2 write -z 64k 64k
        convert -O raw 2.qcow2 want.raw
        commit -b 0.qcow2 -d 2.qcow2
        compare want.raw 0.qcow2
        check 0.qcow2
        ''',
    'convert': '''
        convert -f raw -O qcow2 mixed.raw a.qcow2
        convert -p -f raw -O qcow2 -c mixed.raw c.qcow2
        convert -O qcow2 -c -o compression_type=zstd,cluster_size=128k -W -m 4 c.qcow2 z.qcow2
        convert -O vmdk -o subformat=streamOptimized a.qcow2 a.vmdk
        convert -O vpc -o subformat=dynamic,force_size=on a.qcow2 a.vhd
        convert -O vhdx a.qcow2 a.vhdx
        convert -O vdi a.vhdx a.vdi
        convert -t none -T none -S 64k a.vdi a.raw
        convert -S 0 -O raw a.vmdk full.raw
        convert -n -O qcow2 a.vmdk a.qcow2
        compare -q mixed.raw a.qcow2
        compare mixed.raw z.qcow2
        compare a.raw full.raw
        check --output=json a.qcow2
        convert -U -f qcow2 -O raw -r 1G a.qcow2 b.raw
        convert -O qcow2 -o preallocation=off,lazy_refcounts=on mixed.raw l.qcow2
        convert -f raw -O qcow2 mixed.raw b.raw mixed.raw row.qcow2
        convert -C -f raw -O raw mixed.raw offloaded.raw
        ! convert -C -c -f raw -O qcow2 mixed.raw x
        ! convert missing.raw x.raw
        ! convert -O nonsense mixed.raw x
        ! convert -f qcow2 mixed.raw x
        ! convert mixed.raw
        ''',
    'over a backing file': '''
        create -f qcow2 base.qcow2 4M
        io base.qcow2 write -P 7 0 4M
        create -f qcow2 -b base.qcow2 -F qcow2 top.qcow2
        io top.qcow2 write -P 8 1M 64k
        convert -O qcow2 -B base.qcow2 -F qcow2 top.qcow2 flat.qcow2
        compare top.qcow2 flat.qcow2
        convert -O qcow2 -o backing_file=base.qcow2,backing_fmt=qcow2 top.qcow2 flat2.qcow2
        compare top.qcow2 flat2.qcow2
        info --output=json flat2.qcow2
        ''',
    'snapshots': '''
        create -f qcow2 a.qcow2 4M
        io a.qcow2 write -P 1 0 1M
        snapshot -c one a.qcow2
        io a.qcow2 write -P 2 0 2M
        snapshot -c two a.qcow2
        snapshot -l a.qcow2
        convert -l one -O raw a.qcow2 one.raw
        convert -l snapshot.name=two -O raw a.qcow2 two.raw
        ! compare one.raw two.raw
        snapshot -a one a.qcow2
        compare a.qcow2 one.raw
        snapshot -d two a.qcow2
        ! snapshot -d two a.qcow2
        check -r all a.qcow2
        ''',
    'sizes': '''
        create a.raw 1M
        create -f qcow2 a.qcow2 1048576
        create -f qcow2 -o size=2M,cluster_size=4k b.qcow2
        resize -f raw a.raw +1M
        resize a.qcow2 3M
        ! resize -f raw a.raw 1M
        resize -f raw --shrink a.raw -512k
        info --output=json -f raw a.raw
        info --output=json a.qcow2
        ! create -f qcow2 c.qcow2
        ! create -f qcow2 c.qcow2 1Z
        ''',
    'measure': '''
        measure -O raw mixed.raw
        measure --output=json -f raw -O qcow2 mixed.raw
        measure --output json -O qcow2 --size 10G
        measure --output json -O qcow2 -o cluster_size=4k --size 3T
        measure --output json -O qcow2 -o refcount_bits=64 --size 64M
        measure --output json --size 12345678
        ! measure --output json -O vdi --size 1G
        ! measure -O qcow2
        ''',
    'amend': '''
        create -f qcow2 -o compat=0.10 a.qcow2 4M
        io a.qcow2 write -P 1 0 1M
        amend -f qcow2 -o compat=1.1 a.qcow2
        info --output=json a.qcow2
        check a.qcow2
        amend -o lazy_refcounts=on a.qcow2
        info --output=json a.qcow2
        io a.qcow2 write -z 0 64k
        convert -O raw a.qcow2 want.raw
        amend -o compat=0.10,lazy_refcounts=off a.qcow2
        info --output=json a.qcow2
        check a.qcow2
        compare want.raw a.qcow2
        ! amend -o nonsense=1 a.qcow2
        ! amend a.qcow2
        ''',
    'dd': '''
        dd if=mixed.raw of=all.raw
        dd -f raw -O qcow2 bs=64k count=10 skip=3 if=mixed.raw of=part.qcow2
        dd bs=1M count=100 skip=7 if=part.qcow2 of=end.raw
        convert -O raw part.qcow2 part.raw
        compare all.raw mixed.raw
        ! dd if=mixed.raw
        ! dd if=missing of=x
        ''',
    'bench': '''
        create -f qcow2 a.qcow2 4M
        bench -c 50 -d 4 -f qcow2 -s 4k -S 64k a.qcow2
        bench -w -c 50 -d 1 --pattern=17 --flush-interval=10 -f qcow2 -s 64k a.qcow2
        check a.qcow2
        ! bench -f qcow2 missing
        ''',
    'options': '''
        create -f qcow2 a.qcow2 4M
        info --image-opts driver=qcow2,file.filename=a.qcow2
        convert --image-opts driver=qcow2,file.driver=file,file.filename=a.qcow2 -O raw a.raw
        compare --image-opts driver=qcow2,file.filename=a.qcow2 driver=raw,file.filename=a.raw
        check -q a.qcow2
        ! check a.raw
        check -f qcow2 -T none a.qcow2
        ! info
        ! nonsense
        ! info -f qcow2 a.raw
        ! info -T strange a.raw
        ! create -f qcow2 -b a.raw c.qcow2
        ! info missing
        ! compare a.raw missing
        ! info --output=xml a.raw
        ''',
}
IGNORED = {'actual-size', 'children', 'filename', 'full-backing-filename', 'date-sec', 'date-nsec',
           'vm-clock-sec', 'vm-clock-nsec', 'compressed', 'image-end-offset', 'fragmented-clusters', 'offset', 'icount'}


def comparable(value):
    """What must be equal: names of folders and where clusters lie may differ."""
    if isinstance(value, dict):
        return {key: comparable(item) for key, item in value.items() if key not in IGNORED}
    return [comparable(item) for item in value] if isinstance(value, list) else value


def run(folder, program, words):
    if words[0] == 'io':
        return folder.call('qemu-io', '-c', ' '.join(words[2:]), words[1])
    return folder.call(program, *words, status=None)


def same_outcome(line, theirs, ours):
    told = '%s\n%s%s\n%s%s' % (line, theirs.stdout, theirs.stderr, ours.stdout, ours.stderr)
    assert (theirs.returncode != 0) == line.startswith('!'), told
    assert ours.returncode == theirs.returncode, told
    if '--output' in line and theirs.returncode == 0:
        assert comparable(json.loads(ours.stdout)) == comparable(json.loads(theirs.stdout)), told
    if ours.returncode and not ours.stdout:
        assert ours.stderr.startswith('qemu-img: ') and ours.stderr.count('\n') == 1, told


@pytest.mark.parametrize('name', SCRIPTS)
def test_same_as_qemu_img(images, name):
    folders = [Images(images.path(side)) for side in ('theirs', 'ours')]
    for folder in folders:
        folder.directory.mkdir()
        folder.mixed('mixed.raw')
    program = images.path('qemu-img')
    os.symlink(BUILD / 'src/cmd/tenon', program)
    for line in SCRIPTS[name].strip().splitlines():
        line = line.strip()
        words = shlex.split(line.removeprefix('! '))
        same_outcome(line, run(folders[0], 'qemu-img', words), run(folders[1], program, words))
    listing = [sorted(path.name for path in folder.directory.iterdir()) for folder in folders]
    assert listing[0] == listing[1]
    for file in listing[0]:
        theirs, ours = (folder.path(file) for folder in folders)
        form = 'vpc' if file.endswith('.vhd') else 'raw' if file.endswith('.raw') else file.split('.')[-1]
        images.qemu('compare', '-f', form, '-F', form, theirs, ours)
