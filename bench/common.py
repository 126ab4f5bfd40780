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
