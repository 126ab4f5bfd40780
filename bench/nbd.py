#!/usr/bin/env python3
"""NBD serving of a qcow2 image: `tenon image serve` against qemu-nbd, in turn.

Prints for each load the median seconds that it took, and the processor seconds of the server alone,
which other work on the machine disturbs less. Wants nbdcopy, qemu-nbd, and fio with its nbd engine.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import argparse
import os
import pathlib
import resource
import statistics
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
URI = 'nbd+unix:///?socket=s.sock'


def fio(rw, block, depth, jobs, amount):
    return ['fio', '--name=x', '--ioengine=nbd', '--uri=' + URI, '--rw=' + rw, '--bs=' + block,
            '--iodepth=%d' % depth, '--numjobs=%d' % jobs, '--thread', '--size=1G',
            '--io_size=' + amount, '--group_reporting', '--randseed=7', '--norandommap']


LOADS = {  # name: (read-only, command)
    'nbdcopy to nowhere': (True, ['nbdcopy', URI, 'null:']),
    'random read 4k, depth 32': (True, fio('randread', '4k', 32, 1, '128M')),
    'random read 4k, 4 connections': (True, fio('randread', '4k', 32, 4, '32M')),
    'random read 64k, depth 16': (True, fio('randread', '64k', 16, 1, '1G')),
    'random write 4k, depth 32': (False, fio('randwrite', '4k', 32, 1, '128M')),
    'write 256k, depth 8': (False, fio('write', '256k', 8, 1, '1G')),
}


def children():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def once(server, readonly, load):
    """Seconds of the load, processor seconds of the server."""
    process = subprocess.Popen(server + (['--read-only'] if readonly else []) + ['image.qcow2'],
                               stdout=subprocess.DEVNULL)
    while not os.path.exists('s.sock'):
        time.sleep(0.01)
    begin = time.monotonic()
    subprocess.run(load, check=True, capture_output=True)
    took = time.monotonic() - begin
    before = children()
    process.terminate()
    process.wait()
    if os.path.exists('s.sock'):
        os.unlink('s.sock')
    return took, children() - before


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--build', default=ROOT / 'build')
    parser.add_argument('--rounds', type=int, default=5)
    parser.add_argument('--qemu-nbd', default='qemu-nbd')
    args = parser.parse_args()
    tenon = [str(pathlib.Path(args.build).resolve() / 'src/cmd/tenon'), 'image', 'serve',
             '--format', 'qcow2', '--socket', 's.sock']
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        qemu = [args.qemu_nbd, '-t', '-e', '8', '-f', 'qcow2', '-k', folder + '/s.sock']
        subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', 'image.qcow2', '1G'], check=True)
        once(tenon, False, fio('write', '1M', 4, 1, '1G'))  # all of it is allocated
        print('| load | Tenon s | qemu-nbd s | ratio | Tenon CPU s | qemu-nbd CPU s | ratio |')
        print('|---|---|---|---|---|---|---|')
        for name, (readonly, load) in LOADS.items():
            rows = [once(server, readonly, load) for _ in range(args.rounds)
                    for server in (tenon, qemu)]
            ours, theirs = ([statistics.median(column) for column in zip(*rows[i::2])]
                            for i in (0, 1))
            print('| %s | %.2f | %.2f | %.2fx | %.2f | %.2f | %.2fx |'
                  % (name, ours[0], theirs[0], theirs[0] / ours[0], ours[1], theirs[1],
                     theirs[1] / ours[1]), flush=True)


main()
