"""
Trace points: tenon-vmm has those that its manual lists, with as many arguments.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import re
import subprocess

import pytest

from conftest import ROOT

LISTED = re.compile(r'^\.BR ([a-z_]+) \(([a-z, ]+)\)$', re.MULTILINE)


def test_trace_points_are_those_of_the_manual(programs):
    header = subprocess.run(['gcc', '-E', '-'], input='#include <sys/sdt.h>\n', capture_output=True, text=True)
    if header.returncode:
        pytest.skip('package systemtap-sdt-dev is missing')
    notes = subprocess.run(['readelf', '-n', programs / 'tenon-vmm'], capture_output=True, text=True, check=True).stdout
    found = {}
    for note in notes.split('Provider: ')[1:]:
        provider, name, arguments = (re.search(pattern, 'Provider: ' + note)[1] for pattern in (
            r'Provider: (\S+)', r'Name: (\S+)', r'Arguments:(.*)'))
        if provider == 'tenon':
            found.setdefault(name, set()).add(len(arguments.split()))
    manual = (ROOT / 'docs/man/tenon-vmm.8.in').read_text().partition('.SH TRACE POINTS')[2].partition('.SH')[0]
    listed = {name: {len(arguments.split(', '))} for name, arguments in LISTED.findall(manual)}
    assert len(listed) == 9
    assert found == listed
