"""
Every way in which a guest stops, sleeps and starts again, one after another in one virtual machine:
suspend-to-idle, S3, kexec, soft reboot, triple fault, hard reset, and at last the power button.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import shutil
import subprocess

import pytest

from conftest import PATIENCE, ROOT, Qmp, e2fsprogs, read_until

STEPS = ('s2idle', 'deep', 'kexec', 'reboot', 'triple', 'reset')
# Runs at each start: takes the first step off the plan, and does it.
SCRIPT = """
# An alarm that comes before the sleep makes the kernel refuse it: nothing sleeps for ever.
sleep_until_alarm() {
    events=$(cat /sys/power/wakeup_count)
    echo 0 >/sys/class/rtc/rtc0/wakealarm
    echo +3 >/sys/class/rtc/rtc0/wakealarm
    echo $events >/sys/power/wakeup_count && echo mem >/sys/power/state
}
while read -r step <plan; do
    sed -i 1d plan
    sync
    echo "power: $step"
    case $step in
    s2idle | deep)
        echo $step >/sys/power/mem_sleep
        until sleep_until_alarm; do :; done
        echo "power: woke from $step" ;;
    kexec) ./kexec vmlinuz initrd "$(cat /proc/cmdline)" ;;
    reboot) reboot -f ;;
    triple) echo triple >/sys/kernel/reboot/type; reboot -f ;;
    reset | button) sleep 1000000 ;;
    esac
done
"""


@pytest.fixture
def plan_disk(tenon, demo_guest):
    """A function that makes a disk with this plan."""
    def make(steps):
        files = tenon.directory / 'files'
        files.mkdir()
        (files / 'script').write_text(SCRIPT)
        (files / 'plan').write_text(''.join(step + '\n' for step in steps))
        for name in ('vmlinuz', 'initrd'):
            shutil.copy(demo_guest / name, files)
        subprocess.run(['cc', '-static', '-O1', '-o', files / 'kexec', ROOT / 'tests/e2e/kexec.c'],
                       check=True)
        path = tenon.disk('plan.img', 96 << 20)
        assert e2fsprogs('mke2fs', '-q', '-t', 'ext4', '-d', str(files), path).returncode == 0
        return path
    return make


@pytest.mark.parametrize('rounds', [2, pytest.param(10, marks=pytest.mark.soak)])
def test_sleeps_and_starts(tenon, demo_guest, plan_disk, rounds):
    disk = plan_disk([step for step in STEPS for _ in range(rounds)] + ['button'])
    with open(tenon.directory / 'said', 'wb') as said:
        process = tenon.start('run', '--accel', 'soft', '--board', 'q35', '--kernel',
                              demo_guest / 'vmlinux', '--initrd', demo_guest / 'initrd', '--append',
                              'console=ttyS0 quiet tenon.demo=script', '--disk', disk, '--net',
                              'user', '--qmp', 'qmp.sock', '--verbose', stderr=said)
        qmp = Qmp(tenon.directory / 'qmp.sock', PATIENCE)
        seen = ''
        for _ in range(rounds):
            seen += read_until(process, 'power: reset', PATIENCE)
            qmp.command('system_reset')
        seen += read_until(process, 'power: button', PATIENCE)
        qmp.command('system_powerdown')
        out, _ = process.communicate(timeout=PATIENCE)
        qmp.close()
    said = (tenon.directory / 'said').read_text()
    assert process.returncode == 0, (seen[-2000:], out[-2000:], said[-2000:])
    for step in ('s2idle', 'deep'):
        assert seen.count('power: woke from ' + step) == rounds, seen[-3000:]
    # Each start says so; kexec goes past the machine's reset, which a triple fault is.
    assert seen.count('demo: init') == 1 + 4 * rounds, seen[-3000:]
    assert said.count('the guest reset itself: starting again') == rounds, said
    assert said.count('CPU 0 stopped with a triple fault: starting again') == rounds, said
    assert said.count('the VM was reset from outside: starting again') == rounds, said
    assert 'FAILED' not in seen and e2fsprogs('e2fsck', '-fn', disk).returncode == 0
