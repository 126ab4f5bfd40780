"""
Firmware from Debian's packages: it starts, finds its disk, and boots what lies there.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import pathlib

import pytest

from conftest import read_until, wait_for

FIRMWARE = {'bios': pathlib.Path('/usr/share/seabios/bios-256k.bin'),
            'uefi': pathlib.Path('/usr/share/OVMF/OVMF_CODE_4M.fd')}

needs_seabios = pytest.mark.skipif(not FIRMWARE['bios'].exists(), reason='package seabios is missing')


def expect_failure(result, status, *words):
    assert result.returncode == status, result.stderr
    for word in words:
        assert word in result.stderr, (word, result.stderr)


def boot_sector(directory, code, name='boot.img'):
    """A disk whose first sector is a boot program: 16-bit code at 0x7c00."""
    path = directory / name
    assert len(code) <= 440
    with open(path, 'wb') as disk:
        disk.write(code + bytes(510 - len(code)) + b'\x55\xaa')
        disk.truncate(1 << 20)
    return path


def bios_text(text):
    """int 0x10, teletype, for each byte"""
    return b''.join(b'\xb4\x0e\xb0' + bytes([byte]) + b'\xcd\x10' for byte in text.encode())


def exit_with(value):
    """mov al, value; mov dx, 0xf4; out dx, al"""
    return b'\xb0' + bytes([value]) + b'\xba\xf4\x00\xee\xf4'


@needs_seabios
def test_bios_boots_from_the_disk(tenon, tmp_path):
    # Reads its own second sector through int 0x13 and compares: the disk works both ways.
    code = (b'\x31\xc0\x8e\xd8\x8e\xc0'                  # ds = es = 0
            + bios_text('sector one\r\n')
            + b'\xb8\x01\x02\xb9\x02\x00\xbb\x00\x7e'    # ax = 0x0201, cx = 2, bx = 0x7e00
            + b'\xb6\x00\xcd\x13'                        # dh = 0, int 0x13 (dl: the boot drive)
            + b'\xa0\x00\x7e\xba\xf4\x00\xee\xf4')       # out 0xf4, [0x7e00]
    disk = boot_sector(tmp_path, code)
    with open(disk, 'r+b') as image:
        image.seek(512)
        image.write(b'\x2a')
    result = tenon.run('run', '--accel', 'soft', '--firmware', 'bios', '--disk', disk,
                       '--debug-exit', '--console', 'serial', '--console',
                       'firmware,backend=file,path=log', timeout=300)
    assert 'SeaBIOS (version' in result.stdout
    assert 'Booting from Hard Disk...' in result.stdout
    assert 'sector' in result.stdout  # the BIOS sends the last bytes with its next tick
    assert result.returncode == 1, result.stderr  # a status that is not 0
    log = (tmp_path / 'log').read_text()
    assert 'PCIe: using q35 mmconfig at 0xb0000000' in log
    assert 'Copying SMBIOS 3.0' in log
    assert 'table(50434146)=' in log  # FADT, through the script for the tables
    assert 'using modern (1.0) virtio mode' in log


@needs_seabios
def test_bios_is_the_standard_without_a_kernel(tenon, tmp_path):
    disk = boot_sector(tmp_path, exit_with(0))
    result = tenon.run('run', '--accel', 'soft', '--disk', disk, '--debug-exit', '--cpus', 3,
                       timeout=300)
    assert result.returncode == 0, result.stderr
    assert 'firmware: bios' in result.stderr
    dry = tenon.run('run', '--disk', disk, '--dry-run')
    assert 'firmware: bios' in dry.stdout and 'board: q35' in dry.stdout


@needs_seabios
@pytest.mark.parametrize('reset', [
    b'\xba\xf9\x0c\xb0\x06\xee',         # reset control register
    b'\xb0\x01\xe6\x92',                 # port 0x92
    b'\xb0\xfe\xe6\x64',                 # keyboard controller
    b'\x0f\x01\x1e\x00\x06\xcc',         # lidt of nothing, int3: triple fault
], ids=['0xcf9', 'port92', 'i8042', 'triple-fault'])
def test_every_reset_starts_the_firmware_again(tenon, tmp_path, reset):
    # The first start marks CMOS, which a reset leaves alone, and resets; the second ends.
    code = (b'\x31\xc0\x8e\xd8\xb0\x51\xe6\x70\xe4\x71\x3c\x77\x74\x08'  # CMOS 0x51 is 0x77: on
            + b'\xb0\x77\xe6\x71\xeb\x09\x90\x90' + exit_with(0) + b'\x90'
            + reset + b'\xf4\xeb\xfd')
    disk = boot_sector(tmp_path, code)
    result = tenon.run('run', '--accel', 'soft', '--disk', disk, '--debug-exit', '--verbose',
                       timeout=300)
    assert result.returncode == 0, result.stderr
    assert result.stdout.count('Booting from Hard Disk') == 2
    cause = 'triple fault' if reset.startswith(b'\x0f') else 'the guest reset itself'
    assert cause in result.stderr


@pytest.mark.parametrize('kind, words', [('bios', 'No bootable device.'),
                                         ('uefi', 'EFI Internal Shell')])
def test_a_disk_that_does_not_boot(tenon, tmp_path, kind, words):
    if not FIRMWARE[kind].exists():
        pytest.skip('%s is missing' % FIRMWARE[kind])
    with open(tmp_path / 'said', 'w+b') as said:
        process = tenon.start('run', '--accel', 'soft', '--disk', tenon.disk(), '--firmware', kind,
                              *(['--firmware-vars', 'vars.fd'] if kind == 'uefi' else []),
                              stderr=said)
        read_until(process, words, timeout=300)
        other = 'uefi' if kind == 'bios' else 'bios'
        hint = ('tenon: firmware %s found nothing that it can boot: give an image with a boot loader, '
                'another order (--boot), or --firmware %s' % (kind, other))
        wait_for(lambda: hint in (tmp_path / 'said').read_text(), 30, 'the hint')
    process.kill()


@pytest.mark.skipif(not FIRMWARE['uefi'].exists(), reason='package ovmf is missing')
def test_a_broken_variable_store(tenon, tmp_path):
    """It is refused, and stays as it is: the firmware would make it anew without a word."""
    whole = pathlib.Path('/usr/share/OVMF/OVMF_VARS_4M.fd').read_bytes()
    stores = {'short': (whole[:-4096], 'has %d bytes' % (len(whole) - 4096)),
              'empty': (b'', 'has 0 bytes'), 'zeros': (bytes(len(whole)), 'or a broken one'),
              'changed': (whole[:40] + b'X' + whole[41:], 'or a broken one'),
              'sum': (whole[:44] + bytes([whole[44] ^ 1]) + whole[45:], 'or a broken one'),
              'header': (whole[:48] + b'\xff\xff' + whole[50:], 'or a broken one')}
    disk = tenon.disk()
    for name, (store, words) in stores.items():
        path = tmp_path / name
        path.write_bytes(store)
        result = tenon.run('run', '--accel', 'soft', '--disk', disk, '--firmware', 'uefi',
                           '--firmware-vars', path)
        expect_failure(result, 1, 'firmware uefi', "'%s'" % path, words, 'remove it')
        assert path.read_bytes() == store


def test_what_does_not_go_together(tenon, tmp_path):
    disk = tenon.disk()
    expect_failure(tenon.run('run'), 2, 'nothing to start', '--disk')
    expect_failure(tenon.run('run', '--disk', disk, '--board', 'micro'), 2, 'q35')
    expect_failure(tenon.run('run', '--disk', disk, '--firmware', 'bios', '--kernel', disk), 2,
                   '--kernel', '--firmware')
    expect_failure(tenon.run('run', '--disk', disk, '--firmware', 'gone.fd'), 1, "'gone.fd'",
                   'does not exist')
    odd = tmp_path / 'odd.fd'
    odd.write_bytes(bytes(1000))
    expect_failure(tenon.run('run', '--accel', 'soft', '--disk', disk, '--firmware', odd), 1,
                   'firmware', '1000 bytes')


def test_a_missing_package_is_named(tenon, tmp_path):
    if os.geteuid() != 0 or not pathlib.Path('/usr/bin/unshare').exists():
        pytest.skip('needs root to hide the package')
    empty = tmp_path / 'empty'
    empty.mkdir()
    hide = tmp_path / 'hide'
    hide.write_text('#!/bin/sh\nfor at in /usr/share/seabios /usr/share/OVMF; do\n'
                    '[ ! -d $at ] || mount --bind %s $at || exit 77\ndone\nexec "$@"\n' % empty)
    hide.chmod(0o755)
    for name, package in (('bios', 'seabios'), ('uefi', 'ovmf')):
        result = tenon.run('run', '--disk', tenon.disk(), '--firmware', name,
                           prefix=('unshare', '-m', hide))
        if result.returncode == 77 or 'unshare' in result.stderr:
            pytest.skip('no mount namespaces here')
        expect_failure(result, 1, 'apt-get install ' + package)


@needs_seabios
def test_boot_order_and_once(tenon, tmp_path):
    """Three disks that say their letter; the first resets, and the next start goes by the order."""
    reset = b'\xb0\x06\xba\xf9\x0c\xee\xf4'  # mov al, 6; mov dx, 0xcf9; out dx, al; hlt
    for letter, bus in (('a', 'nvme'), ('b', 'scsi'), ('c', 'ahci')):
        code = bios_text('disk %s\r\n' % letter * 3) + exit_with(ord(letter) - 96)
        boot_sector(tmp_path, code, letter + '.img')
    code = bios_text('once\r\n' * 3) + reset
    boot_sector(tmp_path, code, 'once.img')
    disks = ('--disk', 'a.img,bus=nvme,id=a', '--disk', 'b.img,bus=scsi,id=b', '--disk',
             'c.img,bus=ahci,id=c', '--disk', 'once.img,id=once')
    for order, status in (('a', 1), ('b', 2), ('c', 3), ('c,a', 3)):
        result = tenon.run('run', '--accel', 'soft', '--firmware', 'bios', '--debug-exit', *disks,
                           '--boot', order, '--json', timeout=300)
        assert '"status": %d' % status in result.stdout, (order, result.stdout, result.stderr)
    result = tenon.run('run', '--accel', 'soft', '--firmware', 'bios', '--debug-exit', *disks,
                       '--boot', 'b', '--boot-once', 'once', '--json', timeout=300)
    assert 'once' in result.stderr and '"status": 2' in result.stdout, result.stderr
    expect_failure(tenon.run('run', '--firmware', 'bios', *disks, '--boot', 'x'), 2, "no 'x'")
