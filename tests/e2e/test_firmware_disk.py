"""
Stock disk images: GRUB from Debian's packages, started by SeaBIOS and by OVMF, up to init. The menu
is worked over the serial port, as a person would.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import pathlib
import re
import subprocess

import pytest

from conftest import PATIENCE, ROOT, read_until

ENTER, DOWN = b'\r', b'\x1b[B'


def start(tenon, tmp_path, kind, image, *args, **options):
    copy = tmp_path / 'disk.img'
    subprocess.run(['cp', '--sparse=always', image, copy], check=True)
    extra = ['--firmware-vars', tmp_path / 'vars.fd'] if kind == 'uefi' else []
    return tenon.start('run', '--accel', 'soft', '--firmware', kind, '--disk', copy, *extra,
                       *args, **options)


def choose_shell(process):
    """The menu's second entry, by keys; returns what was seen before."""
    seen = read_until(process, 'with shell', timeout=PATIENCE)
    process.stdin.write(DOWN)
    process.stdin.flush()
    read_until(process, '*Tenon, with shell', timeout=PATIENCE)
    process.stdin.write(ENTER)
    process.stdin.flush()
    read_until(process, 'disk: a shell', timeout=PATIENCE)
    return seen


@pytest.mark.parametrize('kind', ['bios', 'uefi'])
def test_boots_by_itself(tenon, tmp_path, disk, kind):
    process = start(tenon, tmp_path, kind, disk(kind), '--report', tmp_path / 'report.json')
    out, err = process.communicate(timeout=PATIENCE)
    out = out.decode(errors='replace')
    assert 'disk: init, ' + kind in out, out[-2000:]
    assert 'disk: done' in out
    assert process.returncode == 0, err.decode(errors='replace')[-2000:]
    stages = {entry['stage']: entry['at_ms'] for entry in
              json.loads((tmp_path / 'report.json').read_text())['timeline']}
    assert (stages['first guest instruction'] < stages['first output'] < stages['boot loader']
            < stages['kernel entry'] < stages['init'] < stages['end']), stages
    if kind == 'uefi':
        # The firmware has written its boot entries into the store.
        template = pathlib.Path('/usr/share/OVMF/OVMF_VARS_4M.fd').read_bytes()
        assert (tmp_path / 'vars.fd').read_bytes() != template


@pytest.mark.soak
@pytest.mark.parametrize('kind', ['bios', 'uefi'])
def test_debian_to_its_login_prompt(tenon, tmp_path, kind):
    """Nothing but the image is named: tenon run picks the firmware by what the disk is."""
    image = tmp_path / 'debian.img'
    subprocess.run([ROOT / 'tools/disk-image', kind, image, '--debian'], check=True)
    process = tenon.start('run', image, '--accel', 'soft', '--memory', '1G', stdin=subprocess.PIPE)
    read_until(process, 'debian login: ', timeout=PATIENCE)
    process.stdin.write(b'root\n')
    process.stdin.flush()
    read_until(process, 'root@debian:~# ', timeout=PATIENCE)
    process.stdin.write(b'echo "firmware $([ -d /sys/firmware/efi ] && echo uefi || echo bios)"; poweroff\n')
    process.stdin.flush()
    read_until(process, 'firmware %s\r' % kind, timeout=PATIENCE)
    read_until(process, 'Power down', timeout=PATIENCE)
    assert process.wait(PATIENCE) == 0


@pytest.mark.parametrize('kind', ['bios', 'uefi'])
def test_a_menu_entry_is_chosen_with_keys(tenon, tmp_path, disk, kind):
    process = start(tenon, tmp_path, kind, disk(kind), stdin=subprocess.PIPE)
    seen = choose_shell(process)
    process.stdin.write(b'echo sum $((6 * 7)); cat /proc/iomem /proc/cmdline; exit\n')
    process.stdin.flush()
    out, err = process.communicate(timeout=PATIENCE)
    out = out.decode(errors='replace')
    assert 'sum 42' in out, (seen[-500:], out[-2000:])
    assert 'disk.mode=shell' in out
    # ACPI and the firmware agree on where things are.
    ecam = re.search(r'([0-9a-f]+)-[0-9a-f]+ : PCI MMCONFIG', out)
    assert ecam and ecam.group(1) in ('b0000000', 'e0000000'), out
    assert process.returncode == 0, err.decode(errors='replace')[-2000:]
