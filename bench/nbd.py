"""NBD serving of a qcow2 image: `tenon image serve` against qemu-nbd.

The seconds of a fio load are those that fio measures: its own start and end take a third of a second more, whoever
serves. The processor seconds are the server's alone. Wants nbdcopy, qemu-nbd, and fio with its nbd engine.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import os
import re
import statistics
import subprocess
import time

NEED = 1.8
URI = 'nbd+unix:///?socket=s.sock'


def fio(rw, block, depth, jobs, amount):
    return ['fio', '--name=x', '--ioengine=nbd', '--uri=' + URI, '--rw=' + rw, '--bs=' + block,
            '--iodepth=%d' % depth, '--numjobs=%d' % jobs, '--thread', '--size=1G',
            '--io_size=' + amount, '--group_reporting', '--randseed=7', '--norandommap', '--output-format=json']


def fio_seconds(output):
    """What fio measured; a line about its memory may come before its JSON."""
    job, = json.loads(output[output.index(b'{'):])['jobs']
    return max(job[way]['runtime'] for way in ('read', 'write')) / 1000


LOADS = {  # name: (read-only, command)
    'nbdcopy to nowhere': (True, ['nbdcopy', URI, 'null:']),
    'random read 4k, depth 32': (True, fio('randread', '4k', 32, 1, '128M')),
    'random read 4k, 4 connections': (True, fio('randread', '4k', 32, 4, '32M')),
    'random read 64k, depth 16': (True, fio('randread', '64k', 16, 1, '1G')),
    'random write 4k, depth 32': (False, fio('randwrite', '4k', 32, 1, '128M')),
    'write 256k, depth 8': (False, fio('write', '256k', 8, 1, '1G')),
}


def once(server, readonly, load, folder):
    """Seconds of the load, processor seconds of the server."""
    words = server + (['--read-only'] if readonly else []) + ['image.qcow2']
    process = subprocess.Popen(words, cwd=folder, stdout=subprocess.DEVNULL)
    subprocess.run(['cat', 'image.qcow2'], cwd=folder, check=True, stdout=subprocess.DEVNULL)  # into memory
    socket = os.path.join(folder, 's.sock')
    while not os.path.exists(socket):
        time.sleep(0.01)
    begin = time.monotonic()
    output = subprocess.run(load, cwd=folder, check=True, capture_output=True).stdout
    took = time.monotonic() - begin
    if load[0] == 'fio':
        took = fio_seconds(output)
    process.terminate()
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if os.path.exists(socket):
        os.unlink(socket)
    return took, used.ru_utime + used.ru_stime


def nbd(args, folder):
    """NBD serving of a qcow2 image of 1 GiB; the CPU seconds are the server's alone"""
    tenon = [args.tenon, 'image', 'serve', '--format', 'qcow2', '--socket', 's.sock']
    qemu = ['qemu-nbd', '-t', '-e', '8', '-f', 'qcow2', '-k', folder + '/s.sock']
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', folder + '/image.qcow2', '1G'],
                   check=True)
    once(tenon, False, fio('write', '1M', 4, 1, '1G'), folder)  # all of it is allocated
    print('\n### %s\n' % nbd.__doc__)
    print('| load | need | qemu-nbd s | Tenon s | ratio | qemu-nbd CPU s | Tenon CPU s | ratio |')
    print('|---|---|---|---|---|---|---|---|')
    ratios = []
    for name, (readonly, load) in LOADS.items():
        if not re.search(args.rows, name):
            continue
        rows = [once(server, readonly, load, folder) for _ in range(args.rounds or 5)
                for server in (qemu, tenon)]
        theirs, ours = ([statistics.median(column) for column in zip(*rows[i::2])] for i in (0, 1))
        print('| %s | %gx | %.2f | %.2f | %.2fx | %.2f | %.2f | %.2fx |'
              % (name, NEED, theirs[0], ours[0], theirs[0] / ours[0], theirs[1], ours[1],
                 theirs[1] / ours[1]), flush=True)
        ratios.append((theirs[0] / ours[0], theirs[1] / ours[1]))
    if ratios:
        means = [statistics.geometric_mean(column) for column in zip(*ratios)]
        print('| **geometric mean** | %gx | | | **%.2fx** | | | **%.2fx** |' % (NEED, *means))
