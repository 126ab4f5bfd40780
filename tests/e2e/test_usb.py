"""
USB, driven by Debian's generic kernel without a single virtio driver, and by SeaBIOS: a disk is
written and booted from, keys and places on the screen arrive.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import re
import struct
import subprocess

from conftest import PATIENCE, Qmp, e2fsprogs, read_until
from test_ahci import start_words

# Both devices are open before the first key is pressed.
SCRIPT = r"""
event_of() {
    grep -A 5 "Name=.*$1" /proc/bus/input/devices | sed -n 's/.*\(event[0-9]*\).*/\1/p' | head -n 1
}
events() {
    timeout 300 dd bs=24 count=$1 iflag=fullblock 2>/dev/null | hexdump -v -e '24/1 "%02x" "\n"' | sed "s/^/usb: $2 /"
}
exec 3</dev/input/$(event_of keyboard) 4</dev/input/$(event_of tablet)
dd if=/dev/urandom of=random.bin bs=1M count=8 2>/dev/null
sha256sum random.bin >checksum.sha256
sync
echo 3 >/proc/sys/vm/drop_caches
sha256sum -c checksum.sha256
echo 'usb: ready for keys'
events 6 key <&3
echo 'usb: ready for places'
events 12 place <&4
"""


def events(text, what):
    """(type, code, value) of each line."""
    lines = re.findall('usb: %s ([0-9a-f]{48})' % what, text)
    return [struct.unpack('<16xHHi', bytes.fromhex(line)) for line in lines]


def test_linux_uses_disk_keyboard_and_tablet(tenon, pc_guest):
    image = tenon.directory / 'disk.raw'
    tree = tenon.directory / 'tree'
    tree.mkdir()
    (tree / 'script').write_text(SCRIPT)
    (tree / 'hello.txt').write_text('hello from the host\n')
    with open(image, 'wb') as file:
        file.truncate(64 << 20)
    assert e2fsprogs('mke2fs', '-q', '-t', 'ext4', '-d', str(tree), str(image)).returncode == 0
    process = tenon.start(*start_words(pc_guest, 'tenon.disk=/dev/sda tenon.demo=script'), '--disk',
                          'path=%s,bus=usb,serial=STICK-1' % image, '--usb-keyboard', '--usb-tablet',
                          '--net', 'none', '--qmp', 'qmp.sock')
    text = read_until(process, 'usb: ready for keys', timeout=PATIENCE)
    result = tenon.run_beside('keys', 'qmp.sock', 'a')
    assert result.returncode == 0, result.stderr
    text += read_until(process, 'usb: ready for places', timeout=PATIENCE)
    qmp = Qmp(tenon.directory / 'qmp.sock')
    qmp.command('input-send-event', events=[
        {'type': 'abs', 'data': {'axis': 'x', 'value': 0x1234}},
        {'type': 'abs', 'data': {'axis': 'y', 'value': 0x7fff}}])
    # More than the guest waits for, whether it sees both places or only the second.
    for _ in range(3):
        for down in (True, False):
            qmp.command('input-send-event', events=[
                {'type': 'btn', 'data': {'down': down, 'button': 'left'}}])
    qmp.close()
    out, err = process.communicate(timeout=PATIENCE)
    text += out.decode(errors='replace')
    assert process.returncode == 0, (text[-3000:], err)
    assert 'demo: the script ended with status 0' in text, text[-3000:]
    assert 'random.bin: OK' in text
    key_a, button = (1, 30), (1, 0x110)
    assert [event[2] for event in events(text, 'key') if event[:2] == key_a] == [1, 0], text[-2000:]
    places = events(text, 'place')
    assert (3, 0, 0x1234) in places and (3, 1, 0x7fff) in places, places
    assert button + (1,) in places, places
    # The kernel knew each for what it is, and nothing had to be repaired.
    for words in (r'new SuperSpeed USB device', r'USB HID v1\.11 Keyboard \[Tenon Tenon USB keyboard\]',
                  r'USB HID v1\.11 Mouse \[Tenon Tenon USB tablet\]', r'SerialNumber: STICK-1'):
        assert re.search(words, text), words
    assert not re.search(r'(usb|xhci_hcd|sd) .*(reset|error|failed|timed out|WARN|died)(?!.*occurred)', text), text
    assert e2fsprogs('e2fsck', '-fn', str(image)).returncode == 0
    digest = re.search('([0-9a-f]{64})', e2fsprogs('debugfs', '-R', 'cat checksum.sha256', str(image)).stdout)
    e2fsprogs('debugfs', '-R', 'dump random.bin %s' % (tenon.directory / 'random.bin'), str(image))
    found = subprocess.run(['sha256sum', tenon.directory / 'random.bin'], capture_output=True, text=True)
    assert digest.group(1) in found.stdout


def test_bios_boots_from_usb_and_takes_its_keys(tenon, disk):
    stick, root = tenon.directory / 'stick.img', tenon.directory / 'root.img'
    for copy in (stick, root):
        subprocess.run(['cp', '--sparse=always', disk('bios'), copy], check=True)
    # The second one has the root file system, and nothing that starts.
    with open(root, 'r+b') as image:
        image.write(bytes(440))
    process = tenon.start('run', '--accel', 'soft', '--firmware', 'bios', '--usb-keyboard', '--disk',
                          str(stick) + ',bus=usb', '--disk', root, '--qmp', 'qmp.sock')
    # A key that comes early waits in the BIOS, and stops the menu's clock.
    read_until(process, 'Booting from Hard Disk', timeout=PATIENCE)
    assert tenon.run_beside('keys', 'qmp.sock', 'down').returncode == 0
    read_until(process, '*Tenon, with shell', timeout=PATIENCE)
    assert tenon.run_beside('keys', 'qmp.sock', 'ret').returncode == 0
    read_until(process, 'disk: a shell', timeout=PATIENCE)
    qmp = Qmp(tenon.directory / 'qmp.sock')
    qmp.command('quit')
    qmp.close()
    process.wait(timeout=PATIENCE)


def test_bad_places(tenon):
    def refused(*args):
        result = tenon.run('run', '--dry-run', *args)
        assert result.returncode == 2, result.stderr
        return result.stderr

    image = tenon.disk()
    nine = [word for i in range(9) for word in ('--disk', image + ',bus=usb')]
    assert '9 USB devices: the controller has 8 connectors' in refused(*nine)
    assert 'a cdrom is at bus ahci' in refused('--disk', image + ',bus=usb,media=cdrom')
