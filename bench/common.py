"""What the benchmarks share.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import pathlib
import re
import statistics

ROOT = pathlib.Path(__file__).resolve().parent.parent
QEMU = 'qemu-system-x86_64'
DEMO = ROOT / '.cache/demo-guest/cloud'


def child_named(parent, name):
    """Process id of the child of `parent` with this name, or None."""
    for path in pathlib.Path('/proc').glob('[0-9]*/stat'):
        try:
            text = path.read_text()
        except OSError:
            continue
        match = re.match(r'(\d+) \((.*)\) \S+ (\d+)', text)
        if match and match.group(2) == name and int(match.group(3)) == parent:
            return int(match.group(1))
    return None


def over_ram(pid, tables=True):
    """
    MiB of proportional set size of a process, without guest RAM: the mappings that ask for huge
    pages, and Tenon's first 2 MiB, which stay out of core dumps as all of its guest RAM does.
    `tables` False leaves out an engine's code tables too: Tenon's lie in the only other anonymous
    mappings of 16 MiB and more, and in the memory file tenon-code.
    """
    total = 0
    for line in open('/proc/%d/smaps' % pid):
        match = re.match(r'^([0-9a-f]+)-([0-9a-f]+) \S+ \S+ \S+ \S+\s*(.*)$', line)
        if match:
            size = int(match.group(2), 16) - int(match.group(1), 16)
            anonymous = not match.group(3)
            shared = match.group(3).startswith('/dev/zero')
            code = (anonymous and size >= 16 << 20) or 'memfd:tenon-code' in match.group(3)
        elif line.startswith('Pss:'):
            pss = int(line.split()[1])
        elif line.startswith('VmFlags:'):
            ram = ' hg' in line or (' dd' in line and (anonymous or shared))
            if not ram and (tables or not code):
                total += pss
    return total / 1024


def report(title, unit, figures, ours):
    medians = {name: statistics.median(values) for name, values in figures.items()}
    rivals = [value for name, value in medians.items() if name not in ours]
    print('\n### %s\n' % title)
    print('| contender | median %s | min | max | to the best rival |' % unit)
    print('|---|---|---|---|---|')
    for name, values in figures.items():
        ratio = '%.2fx' % (medians[name] / min(rivals)) if rivals else '-'
        print('| %s | %.2f | %.2f | %.2f | %s |'
              % (name, medians[name], min(values), max(values), ratio))
