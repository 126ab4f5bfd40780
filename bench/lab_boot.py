"""Kernel boot under KVM, in the lab host (tests/lab): Tenon's boards and QEMU's in turn.

The same kernel, initrd, command line, memory and CPU for all. The main figure is from the kernel's
entry to the first line of its init: what a board makes the kernel do. KVM's own tracepoint marks the
entry for every contender, see bench/lab/boot-timer.c. From exec, firmware and the VMM's start count
as well.

The second pass counts instructions (QEMU's -icount): the lab host's clock moves a nanosecond with each
that it or its guest executes, whatever else the machine does. It repeats within 0.1 %, so one round
is enough, but it makes an exit as cheap as the instructions that KVM and the VMM spend on it.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import pathlib
import re
import shutil
import subprocess
import sys

from common import DEMO, QEMU, ROOT, report

CONTENDERS = {'tenon-micro': 'Tenon micro', 'tenon-q35': 'Tenon q35', 'qemu-q35': 'QEMU q35',
              'qemu-microvm': 'QEMU microvm'}
FIRMWARE = ['bios-256k.bin', 'kvmvapic.bin', 'linuxboot_dma.bin', 'pvh.bin', 'qboot.rom']
LIMIT_S = 400


def gather_firmware(folder):
    """The files that QEMU wants, from its search path, in one folder."""
    folder.mkdir(exist_ok=True)
    path = subprocess.run([QEMU, '-L', 'help'], capture_output=True, text=True, check=True).stdout
    for name in FIRMWARE:
        for place in path.split():
            if (pathlib.Path(place) / name).is_file():
                shutil.copy(pathlib.Path(place) / name, folder)
                break
        else:
            sys.exit('bench: QEMU\'s %s is missing: install seabios and qemu-system-data' % name)


def measure(args, folder, rounds, lab_options=()):
    """{name: [(from exec, from entry) in seconds, ...]}, the warm-up left out."""
    timer = folder / 'boot-timer'
    subprocess.run(['gcc', '-O2', '-static', '-o', timer, ROOT / 'bench/lab/boot-timer.c'],
                   check=True)
    gather_firmware(folder / 'qemu')
    command = [ROOT / 'tests/lab/run', '--build', pathlib.Path(args.tenon).parents[2],
               '--timeout', str(LIMIT_S), '--program', timer,
               '--program', shutil.which(QEMU), '--file', '%s=qemu' % (folder / 'qemu'),
               '--file', DEMO / 'vmlinux', '--file', DEMO / 'initrd',
               '--file', DEMO.parent / 'disk.raw']
    for name in ('tenon', 'tenon-vmm'):
        command += ['--program', pathlib.Path(args.tenon).parent / name]
    command += [ROOT / 'bench/lab/boot.sh', str(rounds), '--', *lab_options]
    lab = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL,
                           stdout=subprocess.PIPE, text=True, errors='replace')
    figures = {name: [] for name in CONTENDERS}
    for line in lab.stdout:
        if 'bench:' in line or 'boot-timer' in line or 'lab:' in line:
            print(line.rstrip(), file=sys.stderr)
        match = re.search(r'bench: (\S+) (\d+) (\d+) (\d+)', line)
        if match and int(match.group(2)):
            figures[match.group(1)].append((int(match.group(3)) / 1e6, int(match.group(4)) / 1e6))
    if lab.wait():
        sys.exit('bench: the lab host ended with status %d' % lab.returncode)
    return figures


def tables(figures, rounds, title, columns):
    for name, values in figures.items():
        if len(values) < rounds:
            print('bench: %s: %d boots instead of %d' % (name, len(values), rounds),
                  file=sys.stderr)
        if not values:
            sys.exit(1)
    for column in columns:
        report('%s to init, %s' % (('Exec', 'Kernel entry')[column], title), 's',
               {CONTENDERS[name]: [pair[column] for pair in values]
                for name, values in figures.items()}, ('Tenon micro', 'Tenon q35'))


def lab_boot(args, folder):
    rounds = args.rounds or 7
    subprocess.run([ROOT / 'tools/demo-guest'], check=True, stdout=subprocess.DEVNULL)
    folder = pathlib.Path(folder)
    print('guest and lab host: Linux', (DEMO / 'release').read_text().strip())
    tables(measure(args, folder, rounds), rounds, 'KVM in the lab host', (1, 0))
    tables(measure(args, folder, 1, ('-icount', 'shift=0')), 1, 'instructions, in 10^9', (1,))
