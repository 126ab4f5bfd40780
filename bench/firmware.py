"""Stock firmware, boot loader and kernel from a disk of tools/disk-image.

Every contender has the same SeaBIOS or OVMF, and the same disk, which nobody writes. The clock is
the CPU time of the vCPU thread; the key that ends GRUB's menu is pressed as soon as the menu is there.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import pathlib
import shutil
import subprocess
import sys

from common import ROOT, report
from engine import Failed, machines_with
from engine import commands as print_commands

OVMF = pathlib.Path('/usr/share/OVMF')
MENU, INIT = b'Tenon, with shell', b'disk: init'


def words(kind, disk, folder):
    """Words for QEMU and for Tenon."""
    qemu = ['-drive', 'file=%s,format=raw,if=virtio,readonly=on' % disk]
    tenon = ['--disk', '%s,readonly' % disk, '--firmware', kind]
    if kind == 'uefi':
        qemu += ['-drive', 'if=pflash,format=raw,readonly=on,file=%s' % (OVMF / 'OVMF_CODE_4M.fd'),
                 '-drive', 'if=pflash,format=raw,file=%s' % (folder / 'qemu.fd')]
        tenon += ['--firmware-vars', str(folder / 'tenon.fd')]
    return qemu, tenon


def fresh_variables(folder):
    for name in ('qemu.fd', 'tenon.fd'):
        shutil.copy(OVMF / 'OVMF_VARS_4M.fd', folder / name)


def boot(machine):
    """Seconds of CPU time to the boot loader's menu and to init."""
    machine.launch()
    try:
        machine.until(MENU)
        machine.thread = machine.find_thread()
        menu = machine.clock()
        machine.process.stdin.write(b'\r')
        machine.until(INIT)
        return menu / 1e9, machine.clock() / 1e9
    except Failed as why:
        sys.exit('bench: %s: %s' % (machine.name, why))
    finally:
        machine.stop()


def firmware(args, folder):
    folder = pathlib.Path(folder)
    for kind in ('bios', 'uefi'):
        disk = folder / (kind + '.img')
        subprocess.run([ROOT / 'tools/disk-image', kind, disk], check=True, capture_output=True)
        machines, missing = machines_with(args, '512M', *words(kind, disk, folder))
        menu, init = {}, {}
        for turn in range(args.rounds or 3):
            first = turn % len(machines)
            for machine in machines[first:] + machines[:first]:
                fresh_variables(folder)
                figures = boot(machine)
                menu.setdefault(machine.name, []).append(figures[0])
                init.setdefault(machine.name, []).append(figures[1])
        report('%s, power-on to the boot loader: CPU time of the vCPU thread' % kind, 's', menu,
               ('Tenon',))
        report('%s, power-on to init' % kind, 's', init, ('Tenon',))
        if missing:
            print('\n%s' % missing)
        print_commands(machines, folder)
