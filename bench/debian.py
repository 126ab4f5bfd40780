"""Debian with systemd: its boot, real programs inside it, and what it costs when it does nothing.

Contenders, driver and measure are those of engine.py; the guests come from tools/debian-guest.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import pathlib
import subprocess
import sys
import time

from common import ROOT, over_ram, report
from engine import Failed, Results, compare, conclude, contenders
from engine import commands as print_commands

APPEND = 'console=ttyS0 quiet root=/dev/vda rw'
IDLE_S = 60
LOGIN = b'debian login: '


def guest(folder, *options):
    """Copies of the root disk and of a data disk with bench/programs as its script; the initrd."""
    listing = {}
    for words in ([ROOT / 'tools/debian-guest', *options],
                  [ROOT / 'tools/debian-guest', 'paths', *options]):
        lines = subprocess.run(words, check=True, capture_output=True, text=True).stdout.splitlines()
        listing = dict(line.split('=', 1) for line in lines if '=' in line)
    root, data = pathlib.Path(folder) / 'root.raw', pathlib.Path(folder) / 'data.raw'
    subprocess.run(['cp', '--sparse=always', listing['root'], root], check=True)
    subprocess.run([ROOT / 'tools/demo-guest', 'disk', data], check=True, capture_output=True)
    environment = dict(os.environ, PATH=os.environ['PATH'] + ':/usr/sbin:/sbin')
    subprocess.run(['debugfs', '-w', '-R', 'write %s script' % (ROOT / 'bench/programs'), data],
                   check=True, capture_output=True, env=environment)
    return [root, data], listing['initrd']


def discarding(args, disks):
    """Words for QEMU and for Tenon: disks that keep nothing of what a guest writes; what makes Tenon's."""
    qemu, tenon = [], []
    overlays = {disk: disk.with_suffix('.qcow2') for disk in disks}
    for disk, overlay in overlays.items():
        qemu += ['-drive', 'file=%s,format=raw,if=virtio,snapshot=on' % disk]
        tenon += ['--disk', str(overlay)]

    def fresh_overlays():
        for disk, overlay in overlays.items():
            subprocess.run([args.tenon, 'image', 'create', '-f', 'qcow2', '--force', '-b', disk.name,
                            '-F', 'raw', overlay], check=True, capture_output=True)

    return qemu, tenon, fresh_overlays


def machines_on(args, disks, initrd, append):
    """Every VM on the same disks."""
    qemu, tenon, fresh_overlays = discarding(args, disks)
    machines, missing = contenders(args, initrd, append, '1G', (qemu, tenon))
    machines[-1].prepare = fresh_overlays
    return machines, missing


def login(args, folder):
    """Debian with systemd to its login prompt: CPU time of the vCPU thread"""
    disks, initrd = guest(folder)
    machines, missing = machines_on(args, disks, initrd, APPEND)
    figures = {}
    for turn in range(args.rounds or 3):
        first = turn % len(machines)
        for machine in machines[first:] + machines[:first]:
            machine.launch()
            try:
                machine.until(LOGIN)
            except Failed as why:
                sys.exit('bench: %s: %s' % (machine.name, why))
            machine.thread = machine.find_thread()
            figures.setdefault(machine.name, []).append(machine.clock() / 1e9)
            machine.stop()
    report(login.__doc__, 's', figures, ('Tenon',))
    if missing:
        print('\n%s' % missing)
    print_commands(machines, folder)


def programs(args, folder):
    """real programs in Debian: CPU time of the vCPU thread for one operation"""
    disks, initrd = guest(folder, '--full')
    machines, missing = machines_on(args, disks, initrd, APPEND + ' tenon.demo=script')
    results = compare(args, machines, None, Results('boot-of-systemd'))
    print('\n### %s\n' % programs.__doc__)
    conclude(machines, missing, results, folder)


def cpu_seconds(pid):
    """CPU time of a process, all its threads and its children's."""
    fields = pathlib.Path('/proc/%d/stat' % pid).read_text().rsplit(')', 1)[1].split()
    return sum(map(int, fields[11:15])) / os.sysconf('SC_CLK_TCK')


def cpu_of(machine):
    """CPU seconds of all programs of a VM so far."""
    pids = {machine.process.pid, machine.vmm()}
    return sum(map(cpu_seconds, pids))


def settle(machines):
    """Until none is busy: what comes after the prompt takes its time on a loaded host."""
    for _ in range(30):
        before = [cpu_of(machine) for machine in machines]
        time.sleep(IDLE_S / 2)
        if all(cpu_of(machine) - then < IDLE_S / 40 for machine, then in zip(machines, before)):
            return
    sys.exit('bench: a guest does not come to rest')


def idle(args, folder):
    """Debian idle at its login prompt for a minute: CPU time of all threads, in percent of a CPU"""
    disks, initrd = guest(folder)
    machines, _ = machines_on(args, disks, initrd, APPEND)
    spent, memory = {}, {}
    for _ in range(args.rounds or 1):
        for machine in machines:
            machine.launch()
            machine.until(LOGIN)
        settle(machines)
        before = [cpu_of(machine) for machine in machines]
        time.sleep(IDLE_S)
        for machine, then in zip(machines, before):
            spent.setdefault(machine.name, []).append((cpu_of(machine) - then) / IDLE_S * 100)
            memory.setdefault(machine.name, []).append(over_ram(machine.vmm()))
            machine.stop()
    report(idle.__doc__, '%', spent, ('Tenon',))
    report('memory of the VMM process over guest RAM (PSS) then', 'MiB', memory, ('Tenon',))
