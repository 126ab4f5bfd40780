"""
The software engine's report and test modes, with the real programs. Under TENON_STRESS=1 the Debian kernel
boots in every stress mode and in lockstep (half an hour); else in two.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import os

import pytest

from conftest import HALT, debug_exit, serial_text

SOFT = ('run', '--accel', 'soft', '--debug-exit', '--quiet', '--json')
STRESS = os.environ.get('TENON_STRESS') == '1'
MODES = ['tlb=4', 'scatter', 'code-cache=64', 'poll', 'xlate-after=0', 'xlate-after=1', 'tlb=4,code-cache=64',
         'crossings', 'scatter,crossings,xlate-after=1', 'lockstep', 'scatter,lockstep']


def test_counters(tenon):
    kernel = tenon.guest('k', serial_text('x') + debug_exit(0) + HALT)
    stats = json.loads(tenon.run(*SOFT, '--kernel', kernel).stdout)['stats']
    assert stats['instructions'] > 0 and stats['cpu_ns'] > 0 and stats['mips'] > 0
    assert stats['exits'] == stats['pio'] + stats['mmio'] + stats['halts']
    assert stats['translations'] > 0 and stats['lockstep'] == 0


@pytest.mark.parametrize('word', ['lockstop', 'tlb=2', 'code-cache=', 'poll,x'])
def test_no_such_mode(tenon, word):
    kernel = tenon.guest('k', debug_exit(0))
    result = tenon.run(*SOFT, '--kernel', kernel, '--accel-debug', word)
    assert result.returncode != 0 and '--accel-debug' in result.stderr


@pytest.mark.parametrize('mode', ['lockstep', 'crossings'])
def test_one_cpu_only(tenon, mode):
    kernel = tenon.guest('k', debug_exit(0))
    result = tenon.run(*SOFT, '--kernel', kernel, '--accel-debug', mode, '--cpus', '2')
    assert result.returncode != 0 and 'one CPU' in result.stderr


@pytest.mark.parametrize('mode', MODES if STRESS else MODES[:2])
def test_debian_kernel(tenon, demo_guest, mode):
    result = tenon.run('run', '--accel', 'soft', '--json', '--kernel', demo_guest / 'vmlinuz', '--initrd',
                       demo_guest / 'initrd', '--append', 'console=ttyS0 tenon.demo=auto', '--accel-debug', mode,
                       timeout=3600 if STRESS else 300)
    report = json.loads(result.stdout)
    assert report['result'] == 'poweroff', result.stderr[-2000:]
    assert report['stats']['native'] > 100 or mode == 'xlate-after=0'
    assert report['stats']['lockstep'] > 10**9 or 'lockstep' not in mode
