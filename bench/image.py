"""tenon image beside qemu-img: conversions of a 4 GiB ext4 image with 2 GiB of files.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import qemu10
from common import ROOT

MIB = int(os.environ.get('TENON_BENCH_MIB') or 2048)  # of files; less for a quick look
ROW_SECONDS = 120  # a row that took longer has no further round
# A run shorter than this is made twice, and the second counts. Hypervisors take back memory that is
# free for seconds; whoever allocates it next, in another pattern than who had it before, pays for that
# with up to ten times the time of a copy.
WARM_SECONDS = 20
# Where the images are: what a host file system costs is part of some rows.
FOLDER = pathlib.Path(os.environ.get('TENON_BENCH_DIR') or ROOT / '.cache/image-bench')
DISK = FOLDER / str(MIB) / 'disk.raw'
KEY = ['--object', 'secret,id=s,data=bench']


def make_disk():
    """ext4 with files below /usr, which Debian's packages put there, and as much room again."""
    if DISK.exists():
        return
    tree = DISK.parent / 'tree'
    shutil.rmtree(tree, ignore_errors=True)
    left = MIB << 20
    for top in ('/usr/bin', '/usr/share', '/usr/lib'):
        for folder, folders, names in os.walk(top):
            folders.sort()
            for name in sorted(names):
                path = pathlib.Path(folder, name)
                if path.is_symlink() or not path.is_file() or path.stat().st_size > left:
                    continue
                left -= path.stat().st_size
                copy = tree / path.relative_to('/')
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, copy)
    new = DISK.with_suffix('.new')
    subprocess.run(['mke2fs', '-q', '-t', 'ext4', '-d', tree, new, '%dM' % (2 * MIB)], check=True)
    shutil.rmtree(tree)
    new.rename(DISK)


def measure(command, cwd):
    """(seconds, CPU seconds with the kernel's, MiB resident at most) of a command."""
    with tempfile.TemporaryFile('w+') as words:
        start = time.perf_counter()
        process = subprocess.Popen(command, cwd=cwd, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.DEVNULL, stderr=words)
        _, status, used = os.wait4(process.pid, 0)
        spent = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            words.seek(0)
            why = words.read()
            if 'Unable to get accurate CPU usage' in why:  # QEMU measures how fast a key is made
                return measure(command, cwd)
            sys.exit('bench: %s: %s' % (' '.join(map(str, command)), why))
    return spent, used.ru_utime + used.ru_stime, used.ru_maxrss / 1024


LUKS = 'driver=luks,key-secret=s,file.filename=disk.luks'


def over(layout='', mode='', *own):
    """A row of 4 KiB writes, each into a cluster of its own, over a backing file."""
    return (2.5, 'bench -w %s -f qcow2 -c 8000 -d 32 -s 4096 -S 69632 {out}' % mode,
            'create -q -f qcow2 %s -b disk.raw -F raw {out}' % layout, *own)


# A row: what is measured, the ratio that it needs, words of a call; {out} is the program's own file,
# which the words of a third part make first, by qemu-img, or with a fourth part each by the program that
# is measured, `tenon image` for Tenon. Steps that do not divide the disk make a bench's order as good as
# random.
ROWS = {
    'raw to qcow2, zlib': (5, 'convert -c -f raw -O qcow2 disk.raw {out}'),
    'raw to qcow2, zstd': (2, 'convert -c -f raw -O qcow2 -o compression_type=zstd disk.raw {out}'),
    'qcow2, zlib, to raw': (2, 'convert -f qcow2 -O raw zlib.qcow2 {out}'),
    'raw to streamOptimized VMDK': (3, 'convert -f raw -O vmdk -o subformat=streamOptimized disk.raw {out}'),
    'streamOptimized VMDK to raw': (2, 'convert -f vmdk -O raw stream.vmdk {out}'),
    'raw to LUKS': (3, 'convert -f raw -O luks -o key-secret=s,iter-time=10 disk.raw {out}'),
    'LUKS to raw': (3, 'convert --image-opts -O raw %s {out}' % LUKS),
    'VHDX to raw': (1.5, 'convert -f vhdx -O raw disk.vhdx {out}'),
    'raw to VMDK': (1.5, 'convert -f raw -O vmdk disk.raw {out}'),
    'compare raw with qcow2': (1.7, 'compare -f raw -F qcow2 disk.raw disk.qcow2'),
    'raw to raw': (0.95, 'convert -f raw -O raw disk.raw {out}'),
    'raw to qcow2': (0.95, 'convert -f raw -O qcow2 disk.raw {out}'),
    '4 KiB writes that allocate': (2, 'bench -w -f qcow2 -c 20000 -d 32 -s 4096 -S 69632 {out}',
                                   'create -q -f qcow2 {out} 16G'),
    '4 KiB writes over a backing file': over('', '', 'own'),
    'the same, both without extended L2 entries': over(),
    'the same, both without them, -t unsafe': over(mode='-t unsafe'),
    'the same, both with them': over('-o extended_l2=on'),
    'the same, both with them, -t unsafe': over('-o extended_l2=on', '-t unsafe'),
    '4 KiB random reads of raw': (0.95, 'bench -f raw -c 200000 -d 32 -s 4096 -S 33558528 disk.raw'),
    '4 KiB random writes of raw': (0.95, 'bench -w -f raw -c 100000 -d 32 -s 4096 -S 33558528 {out}',
                                   'convert -f raw -O raw disk.raw {out}'),
    '4 KiB random reads of a qcow2 of 1 TiB':
        (5, 'bench -f qcow2 -c 50000 -d 32 -s 4096 -S 2013261824 big.qcow2'),
}
SOURCES = {
    'zlib.qcow2': 'convert -c -f raw -O qcow2 disk.raw {out}',
    'stream.vmdk': 'convert -f raw -O vmdk -o subformat=streamOptimized disk.raw {out}',
    'disk.luks': 'convert -f raw -O luks -o key-secret=s,iter-time=10 disk.raw {out}',
    'disk.vhdx': 'convert -f raw -O vhdx disk.raw {out}',
    'disk.qcow2': 'convert -f raw -O qcow2 disk.raw {out}',
    'big.qcow2': 'create -q -f qcow2 -o preallocation=metadata {out} 1T',
}


def words(program, text, out):
    verb, *rest = text.format(out=out).split()
    return program + [verb] + (KEY if 'luks' in text else []) + rest


def contenders(args, folder):
    link = folder / 'qemu-img'
    link.symlink_to(args.tenon)
    found = {'7.2': ['qemu-img'], 'Tenon': [str(link)]}
    try:
        qemu10.command()
        found = {'7.2': ['qemu-img'], '10.0': [str(qemu10.HOME / 'root/usr/bin/qemu-img')], **found}
    except RuntimeError as error:
        print('bench: no QEMU 10: %s' % error, file=sys.stderr)
    return found


def once(program, folder, text, out, make):
    """One run; its figures and the bytes that it wrote, and nothing is left of it."""
    if make:
        maker, made = make
        measure(words(maker, made, out.name), folder)
    figures = measure(words(program, text, out.name), folder)
    size = out.stat().st_blocks * 512 if out.exists() else 0
    out.unlink(missing_ok=True)
    return figures, size


def row(programs, folder, text, rounds, makes):
    """{name: (median seconds, CPU seconds, MiB; bytes written)}, in turn, and the rounds made."""
    figures, sizes = {name: [] for name in programs}, {}
    begin = time.monotonic()
    for turn in range(rounds):
        if time.monotonic() - begin > ROW_SECONDS:
            rounds = turn
            break
        for name, program in programs.items():
            out = folder / ('out-' + name)
            out.unlink(missing_ok=True)
            make = makes.get(name)
            result, sizes[name] = once(program, folder, text, out, make)
            if result[0] < WARM_SECONDS:
                result, sizes[name] = once(program, folder, text, out, make)
            figures[name].append(result)
    return {name: (*(statistics.median(column) for column in zip(*each)), sizes[name])
            for name, each in figures.items()}, rounds


def image(args, _):
    """tenon image beside qemu-img"""
    make_disk()
    folder = DISK.parent
    (folder / 'qemu-img').unlink(missing_ok=True)
    programs = contenders(args, folder)
    rows = {title: call for title, call in ROWS.items() if re.search(args.rows, title)}
    wanted = ' '.join(text for _, text, *_ in rows.values())
    for name, text in SOURCES.items():
        if name in wanted and not (folder / name).exists():
            measure(words(['qemu-img'], text, name), folder)
    print('\n### %s\n' % image.__doc__)
    print('%s MiB of files in an ext4 image of twice that\n' % MIB)
    print('| what | need | faster QEMU s | Tenon s | ratio | QEMU CPU s | Tenon CPU s | ratio | '
          'size to QEMU\'s | Tenon MiB | rounds |')
    print('|---|---|---|---|---|---|---|---|---|---|---|')
    for title, (need, text, *make) in rows.items():
        makes = {}
        for name, program in programs.items() if make else ():
            own = program if name != 'Tenon' else [str(args.tenon), 'image']
            makes[name] = (own if len(make) > 1 else ['qemu-img'], make[0])
        found, rounds = row(programs, folder, text, args.rounds or 3, makes)
        ours = found.pop('Tenon')
        rival = [min(column) for column in zip(*found.values())]
        print('| %s | %gx | %.2f | %.2f | %.2fx | %.2f | %.2f | %.2fx | %s | %.0f | %d |' % (
            title, need, rival[0], ours[0], rival[0] / ours[0], rival[1], ours[1],
            rival[1] / ours[1], '%.3f' % (ours[3] / rival[3]) if rival[3] else '-', ours[2], rounds),
            flush=True)
