"""Stock firmware, boot loader and kernel from a disk of tools/disk-image, to init or Debian's login.

Every contender has the same SeaBIOS or OVMF, and the same disk, which nobody changes. The clock is
the CPU time of the vCPU thread; the key that ends GRUB's menu is pressed as soon as the menu is there.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import pathlib
import re
import shutil
import subprocess
import sys

from common import ROOT, report
from debian import LOGIN, discarding
from engine import Failed, machines_with
from engine import commands as print_commands

OVMF = pathlib.Path('/usr/share/OVMF')
MENU, INIT = b'Tenon, with shell', b'disk: init'


def firmware_words(kind, folder):
    """Words for QEMU and for Tenon."""
    qemu, tenon = [], ['--firmware', kind]
    if kind == 'uefi':
        qemu += ['-drive', 'if=pflash,format=raw,readonly=on,file=%s' % (OVMF / 'OVMF_CODE_4M.fd'),
                 '-drive', 'if=pflash,format=raw,file=%s' % (folder / 'qemu.fd')]
        tenon += ['--firmware-vars', str(folder / 'tenon.fd')]
    return qemu, tenon


def fresh_variables(folder):
    for name in ('qemu.fd', 'tenon.fd'):
        shutil.copy(OVMF / 'OVMF_VARS_4M.fd', folder / name)


def boot(machine, goal):
    """Seconds of CPU time to the boot loader's menu and to the goal."""
    machine.launch()
    try:
        machine.until(MENU)
        machine.thread = machine.find_thread()
        menu = machine.clock()
        machine.process.stdin.write(b'\r')
        machine.until(goal)
        return menu / 1e9, machine.clock() / 1e9
    except Failed as why:
        sys.exit('bench: %s: %s' % (machine.name, why))
    finally:
        machine.stop()


def compare(args, folder, kind, goal, memory, *options):
    """Boots the disk that `options` make, every machine once a round, and reports both times."""
    disk = folder / ('%s.img' % kind)
    subprocess.run([ROOT / 'tools/disk-image', kind, disk, *options], check=True, capture_output=True)
    qemu, tenon, fresh_overlays = discarding(args, [disk])
    firmware = firmware_words(kind, folder)
    machines, missing = machines_with(args, memory, qemu + firmware[0], tenon + firmware[1])
    machines[-1].prepare = fresh_overlays
    menu, end = {}, {}
    for turn in range(args.rounds or 3):
        first = turn % len(machines)
        for machine in machines[first:] + machines[:first]:
            fresh_variables(folder)
            figures = boot(machine, goal)
            menu.setdefault(machine.name, []).append(figures[0])
            end.setdefault(machine.name, []).append(figures[1])
    report('%s, power-on to the boot loader: CPU time of the vCPU thread' % kind, 's', menu, ('Tenon',))
    report("%s, power-on to '%s'" % (kind, goal.decode().strip()), 's', end, ('Tenon',))
    if missing:
        print('\n%s' % missing)
    print_commands(machines, folder)


def firmware(args, folder):
    folder = pathlib.Path(folder)
    for kind in ('bios', 'uefi'):
        if re.fullmatch(args.rows, kind + '-init'):
            compare(args, folder, kind, INIT, '512M')
        if re.fullmatch(args.rows, kind + '-login'):
            compare(args, folder, kind, LOGIN, '1G', '--debian')
