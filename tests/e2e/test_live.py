"""
Live operations on the disks of a running guest, through its control socket, while fio in the guest
writes and verifies: external snapshot, mirror and pivot, commit, stream, resize, on every bus.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import json
import os
import pathlib
import socket
import subprocess

from conftest import HALT, PATIENCE, Qmp, read_until, wait_for
from test_disks import boot_args, digest, fio_disk, overlay  # noqa: F401


class Control(Qmp):
    """QMP with descriptors."""

    def hand_over(self, path, **arguments):
        """The name that stands for the file at `path`."""
        fd = os.open(path, os.O_RDWR)
        socket.send_fds(self.socket, [json.dumps({'execute': 'add-fd', 'arguments': arguments}).encode()], [fd])
        os.close(fd)
        while 'return' not in (message := self.message()):
            assert 'event' in message, message
            self.events.append(message)
        return '/dev/fdset/%d' % message['return']['fdset-id']

    def refused(self, name, /, **arguments):
        answer = self.raw({'execute': name, 'arguments': arguments})
        assert 'error' in answer, answer
        return answer['error']['desc']

    def job_event(self, name, device):
        while True:
            event = self.event(name)
            if event['data']['device'] == device:
                return event['data']


def control(tenon, timeout=60):
    """The socket's path may be longer than an address can be."""
    os.chdir(tenon.directory)
    return Control('qmp.sock', timeout)


def test_disks_change_under_a_guest(tenon, demo_guest, fio_disk):  # noqa: F811
    folder = tenon.directory
    size, grown = 8 << 20, 12 << 20
    disks = {name: overlay(folder, name, size) for name in ('blk', 'scsi', 'nvme')}
    process = tenon.start(
        *boot_args(demo_guest, fio_disk, 'lab.churn=%d:vdb,sda,nvme0n1' % (grown // 512)), '--cpus', 2,
        '--qmp', 'qmp.sock', '--disk', 'path=blk.qcow2,id=blk', '--disk',
        'path=scsi.qcow2,id=scsi,bus=scsi', '--disk', 'path=nvme.qcow2,id=nvme,bus=nvme')
    text = read_until(process, 'guest: round 1 verified', PATIENCE)
    qmp = control(tenon)
    listing = {disk['device']: disk['inserted'] for disk in qmp.command('query-block')}
    assert listing['blk']['drv'] == 'qcow2' and listing['blk']['backing_file_depth'] == 1
    # A layer on top of two of them; the third becomes independent of its base.
    for name in ('blk', 'scsi'):
        path = folder / (name + '-snap.qcow2')
        subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', '-u', '-b', name + '.qcow2',
                        '-F', 'qcow2', path, str(size)], check=True)
        qmp.command('blockdev-snapshot-sync', device=name, mode='existing', format='qcow2',
                    **{'snapshot-file': qmp.hand_over(path)})
    qmp.command('block-stream', device='nvme')
    done = qmp.job_event('BLOCK_JOB_COMPLETED', 'nvme')
    assert 'error' not in done and done['offset'] == done['len']
    # One moves to a new place, the other's new layer goes into the old one.
    path = folder / 'moved.raw'
    path.touch()
    qmp.command('drive-mirror', device='blk', sync='full', format='raw', mode='existing',
                target=qmp.hand_over(path))
    assert 'job' in qmp.refused('block_resize', device='blk', size=2 * size)
    qmp.job_event('BLOCK_JOB_READY', 'blk')
    qmp.command('block-commit', device='scsi', base=qmp.hand_over(folder / 'scsi.qcow2'),
                **{'job-id': 'down'})
    qmp.job_event('BLOCK_JOB_READY', 'down')
    jobs = {job['device']: job for job in qmp.command('query-block-jobs')}
    assert jobs['blk']['ready'] and jobs['down']['type'] == 'commit'
    # A backup of the third, and then of what was written since.
    qmp.command('block-dirty-bitmap-add', node='nvme', name='b', persistent=True)
    for sync, target in (('full', 'full.qcow2'), ('incremental', 'more.qcow2')):
        subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', '-u', folder / target, str(size)] +
                       (['-b', 'full.qcow2', '-F', 'qcow2'] if sync == 'incremental' else []), check=True)
        qmp.command('drive-backup', device='nvme', sync=sync, format='qcow2', target=qmp.hand_over(folder / target),
                    **({'bitmap': 'b'} if sync == 'incremental' else {}))
        done = qmp.job_event('BLOCK_JOB_COMPLETED', 'nvme')
        assert done['type'] == 'backup' and 'error' not in done
        subprocess.run(['qemu-img', 'check', '-q', folder / target], check=True)
    # Pivots, and larger disks.
    for job in ('blk', 'down'):
        qmp.command('block-job-complete', device=job)
        assert 'error' not in qmp.job_event('BLOCK_JOB_COMPLETED', job)
    for name in disks:
        qmp.command('block_resize', device=name, size=grown)
    listing = {disk['device']: disk['inserted'] for disk in qmp.command('query-block')}
    assert listing['blk']['drv'] == 'raw' and listing['blk']['backing_file_depth'] == 0
    assert listing['scsi']['drv'] == 'qcow2' and listing['scsi']['backing_file_depth'] == 1
    assert listing['nvme']['drv'] == 'qcow2' and listing['nvme']['backing_file_depth'] == 0
    text += read_until(process, 'Power down', PATIENCE)
    assert process.wait(60) == 0, process.stderr.read()
    assert 'FAILED' not in text, text[-3000:]
    assert 'guest: all disks verified at their new size' in text, text[-3000:]
    tenon.expect_nothing_left()
    for base, top, before in disks.values():
        assert digest(base) == before
        check = subprocess.run(['qemu-img', 'check', top], capture_output=True, text=True)
        assert check.returncode == 0, check.stdout + check.stderr
    assert path.stat().st_size == grown
    info = json.loads(subprocess.run(['qemu-img', 'info', '--output=json', disks['nvme'][1]],
                                     capture_output=True, check=True).stdout)
    assert 'backing-filename' not in info
    qmp.close()


def test_backups(tenon):
    """The disk as it is, and what a bitmap has, on top of the backup before."""
    folder = tenon.directory
    tenon.disk('a.img', 1 << 20)
    (folder / 'full.img').touch()
    subprocess.run(['qemu-img', 'create', '-q', '-f', 'qcow2', '-b', 'full.img', '-F', 'raw', '-u', 'more.qcow2', '1M'],
                   cwd=folder, check=True)
    process = tenon.start('run', '--accel', 'soft', '--kernel', tenon.guest('halt', HALT), '--disk', 'a.img,id=a',
                          '--qmp', 'qmp.sock')
    qmp = control(tenon)
    qmp.command('block-dirty-bitmap-add', node='a', name='b', granularity=4096)
    assert 'already' in qmp.refused('block-dirty-bitmap-add', node='a', name='b')
    assert 'keep bitmaps' in qmp.refused('block-dirty-bitmap-add', node='a', name='c', persistent=True)
    assert 'power of two' in qmp.refused('block-dirty-bitmap-add', node='a', name='c', granularity=5)
    assert 'no bitmap' in qmp.refused('block-dirty-bitmap-clear', node='a', name='c')
    full, more = qmp.hand_over(folder / 'full.img'), qmp.hand_over(folder / 'more.qcow2')
    assert 'sync' in qmp.refused('drive-backup', device='a', sync='top', target=full)
    assert "'bitmap'" in qmp.refused('drive-backup', device='a', sync='incremental', target=full)
    assert 'bitmap' in qmp.refused('drive-backup', device='a', sync='incremental', bitmap='c', target=full)
    qmp.command('drive-backup', device='a', sync='full', format='raw', target=full)
    assert 'error' not in qmp.job_event('BLOCK_JOB_COMPLETED', 'a')
    assert (folder / 'full.img').read_bytes() == (folder / 'a.img').read_bytes()
    bitmap = {'name': 'b', 'count': 0, 'granularity': 4096, 'recording': True, 'busy': False, 'persistent': False}
    assert qmp.command('query-block')[0]['inserted']['dirty-bitmaps'] == [bitmap]
    qmp.command('drive-backup', device='a', sync='incremental', bitmap='b', format='qcow2', target=more)
    assert 'error' not in qmp.job_event('BLOCK_JOB_COMPLETED', 'a')
    # The same by the names of nodes.
    qmp.command('blockdev-add', driver='raw', **{'node-name': 'again'}, file={'driver': 'file', 'filename': full})
    qmp.command('blockdev-add', driver='file', **{'node-name': 'below'}, filename=more)
    qmp.command('blockdev-add', driver='qcow2', **{'node-name': 'more'}, file='below')
    assert 'already' in qmp.refused('blockdev-add', driver='file', **{'node-name': 'more'}, filename=more)
    assert 'already' in qmp.refused('blockdev-add', driver='file', **{'node-name': 'a'}, filename=more)
    assert 'opens nothing' in qmp.refused('blockdev-add', driver='file', **{'node-name': 'x'}, filename='/dev/null')
    assert "no node 'x'" in qmp.refused('blockdev-add', driver='qcow2', **{'node-name': 'y'}, file='x')
    assert 'blockdev-add' in qmp.refused('blockdev-backup', device='a', sync='full', target=full)
    (folder / 'full.img').write_bytes(b'x' * (1 << 20))
    for target, sync in (('again', {'sync': 'full'}), ('more', {'sync': 'incremental', 'bitmap': 'b'})):
        qmp.command('blockdev-backup', device='a', target=target, **{'job-id': 'copy'}, **sync)
        assert 'error' not in qmp.job_event('BLOCK_JOB_COMPLETED', 'copy')
        qmp.command('blockdev-del', **{'node-name': target})
        assert 'no node' in qmp.refused('blockdev-del', **{'node-name': target})
    assert (folder / 'full.img').read_bytes() == (folder / 'a.img').read_bytes()
    qmp.command('block-dirty-bitmap-remove', node='a', name='b')
    assert 'dirty-bitmaps' not in qmp.command('query-block')[0]['inserted']
    qmp.command('quit')
    process.wait(30)
    qmp.close()
    subprocess.run(['qemu-img', 'compare', '-q', folder / 'a.img', folder / 'more.qcow2'], check=True)


def test_what_is_refused(tenon):
    """Each with a sentence, and the disks stay as they were."""
    folder = tenon.directory
    guest = tenon.guest('halt', HALT)
    for name in ('a.img', 'b.img', 'small.img'):
        tenon.disk(name, 1 << 20)
    os.truncate(folder / 'small.img', 4096)
    process = tenon.start('run', '--accel', 'soft', '--kernel', guest, '--disk', 'a.img,id=a',
                          '--disk', 'path=b.img,id=b,readonly', '--qmp', 'qmp.sock')
    qmp = control(tenon)
    assert "no disk 'x'" in qmp.refused('block_resize', device='x', size=1 << 20)
    assert 'multiple' in qmp.refused('block_resize', device='a', size=1000)
    assert 'shrink' in qmp.refused('block_resize', device='a', size=512)
    assert 'read-only' in qmp.refused('block_resize', device='b', size=2 << 20)
    assert 'no layer below' in qmp.refused('block-stream', device='a')
    assert 'opens nothing' in qmp.refused('drive-mirror', device='a', sync='full', target='/x')
    assert 'no \'/dev/fdset/9' in qmp.refused('drive-mirror', device='a', sync='full',
                                              target='/dev/fdset/9')
    assert 'no file descriptor' in qmp.refused('add-fd')
    handed = qmp.hand_over(folder / 'small.img')
    assert 'sync' in qmp.refused('drive-mirror', device='a', sync='some', target=handed)
    assert 'qcow2' in qmp.refused('blockdev-snapshot-sync', device='a',
                                  **{'snapshot-file': handed})
    assert 'no layer' in qmp.refused('block-commit', device='a', base=handed)
    assert 'no job' in qmp.refused('block-job-complete', device='a')
    assert qmp.command('query-block-jobs') == []
    qmp.command('remove-fd', **{'fdset-id': int(handed.split('/')[-1])})
    # A mirror without a pivot leaves a copy behind, and the disk where it was.
    (folder / 'copy.img').touch()
    qmp.command('drive-mirror', device='a', sync='full', format='raw',
                target=qmp.hand_over(folder / 'copy.img'), speed=100 << 20)
    qmp.job_event('BLOCK_JOB_READY', 'a')
    qmp.command('block-job-cancel', device='a')
    qmp.job_event('BLOCK_JOB_COMPLETED', 'a')
    assert (folder / 'copy.img').read_bytes() == (folder / 'a.img').read_bytes()
    qmp.command('quit')
    assert process.wait(30) in (0, 1)
    tenon.expect_nothing_left()
    qmp.close()


def test_what_is_handed_over(tenon):
    """Sets have numbers of 63 bits, and none is made up; only a regular file is written to, which keeps no VM waiting."""
    folder = tenon.directory
    process = tenon.start('run', '--accel', 'soft', '--kernel', tenon.guest('halt', HALT), '--vga', '--qmp', 'qmp.sock')
    qmp = control(tenon)
    (folder / 'out').touch()
    os.mkfifo(folder / 'pipe')
    first, far = (qmp.hand_over(folder / 'out', **{'fdset-id': number}) for number in (0, 1 << 32))
    assert (first, far) == ('/dev/fdset/0', '/dev/fdset/4294967296')
    for name in ('', '-0', ' 0', '00', '0x0', '1', '18446744073709551616'):
        assert 'there is no' in qmp.refused('screendump', filename='/dev/fdset/' + name)
    for number, why in ((None, 'is the number'), ('0', 'is the number'), (1, 'there is no'), (-1, 'there is no')):
        assert why in qmp.refused('remove-fd', **{'fdset-id': number})
    assert 'is the number' in qmp.refused('remove-fd')
    qmp.command('screendump', filename=far)
    assert (folder / 'out').read_bytes().startswith(b'P6')
    pipe = qmp.hand_over(folder / 'pipe')
    assert 'regular file' in qmp.refused('screendump', filename=pipe)
    assert 'regular file' in qmp.refused('pmemsave', val=0, size=1 << 20, filename=pipe)
    for number in (0, 1 << 32, int(pipe.split('/')[-1])):
        qmp.command('remove-fd', **{'fdset-id': number})
    assert 'there is no' in qmp.refused('screendump', filename=far)
    qmp.command('quit')
    assert process.wait(30) == 0
    qmp.close()


class Jobs:
    """Jobs on a disk that has no error, while another disk's error holds the VM."""

    def __init__(self, tenon):
        self.kept = tenon.disk('kept.img', 8 << 20)
        self.copy = tenon.directory / 'copy.img'
        self.copy.touch()

    def states(self):
        return [(job['device'], job['status']) for job in self.qmp.command('query-block-jobs')]

    def begin(self, qmp):
        self.qmp = qmp
        qmp.command('drive-mirror', device='kept', sync='full', format='raw', target=qmp.hand_over(self.copy))
        qmp.job_event('BLOCK_JOB_READY', 'kept')

    def steps(self):
        """What to do for each time the VM is held: meanwhile, and then."""
        return (self.held_when_ready, self.go_on), (self.held_when_done, self.end)

    def held_when_ready(self):
        for command in ('block-job-complete', 'block-job-cancel'):
            assert 'continue it first' in self.qmp.refused(command, device='kept')
        assert self.states() == [('kept', 'ready')]

    def go_on(self):
        """The mirror becomes a copy, and a backup begins that does not come far."""
        self.qmp.command('block-job-cancel', device='kept')
        assert 'error' not in self.qmp.job_event('BLOCK_JOB_COMPLETED', 'kept')
        self.copy.write_bytes(b'')
        self.qmp.command('drive-backup', device='kept', sync='full', format='raw', speed=1,
                         target=self.qmp.hand_over(self.copy), **{'job-id': 'slow'})

    def held_when_done(self):
        self.qmp.command('block-job-set-speed', device='slow', speed=0)
        wait_for(lambda: self.states() == [('slow', 'concluded')], PATIENCE, 'the end of the backup')
        assert not [event for event in self.qmp.events if event['event'].startswith('BLOCK_JOB')]

    def end(self):
        assert 'error' not in self.qmp.job_event('BLOCK_JOB_COMPLETED', 'slow')
        assert self.states() == []
        assert self.copy.read_bytes() == pathlib.Path(self.kept).read_bytes()


def test_an_error_stops_the_vm_until_it_is_mended(tenon, demo_guest, fio_disk):  # noqa: F811
    """On every bus; the guest never hears of it. Jobs that end meanwhile wait for the VM."""
    disks = (('virtio', 'vdb'), ('scsi', 'sda'), ('nvme', 'nvme0n1'))
    args, words = [], ' '.join('lab.await=' + device for _, device in disks)
    for bus, _ in disks:
        tenon.disk(bus + '.img', 1 << 20)
        args += ['--disk', 'path=%s.img,id=%s,on-error=stop,bus=%s' % (bus, bus, bus)]
    jobs = Jobs(tenon)
    args += ['--disk', 'kept.img,id=kept']
    process = tenon.start(*boot_args(demo_guest, fio_disk, words), '--qmp', 'qmp.sock', *args)
    text = read_until(process, 'guest: reads vdb', PATIENCE)
    qmp = control(tenon)
    jobs.begin(qmp)
    for bus, device in disks:
        path = tenon.directory / (bus + '.img')
        if 'guest: reads ' + device not in text:
            text += read_until(process, 'guest: reads ' + device, PATIENCE)
        for held, after in jobs.steps() if bus == 'virtio' else 2 * [(None, None)]:
            os.truncate(path, 0)  # what it had cannot be read any more
            data = qmp.event('BLOCK_IO_ERROR')['data']
            assert data['device'] == bus and data['action'] == 'stop' and data['operation'] == 'read'
            qmp.event('STOP')
            assert qmp.command('query-status')['status'] == 'io-error'
            assert 'continue' in qmp.refused('block_resize', device=bus, size=2 << 20)
            if held:
                held()
            os.truncate(path, 1 << 20)
            qmp.command('cont')
            assert qmp.command('query-status')['status'] == 'running'
            if after:
                after()
        with open(path, 'r+b') as file:
            file.write(b'Z')
        text += read_until(process, device + ' begins with Z', PATIENCE)
    if 'Power down' not in text:
        text += read_until(process, 'Power down', PATIENCE)
    assert 'FAILED' not in text and 'cannot' not in text, text
    assert process.wait(60) == 0
    assert b'the VM waits' in process.stderr.read()
    qmp.close()


def test_an_error_is_reported_by_default(tenon, demo_guest, fio_disk):  # noqa: F811
    path = tenon.disk('bad.img', 1 << 20)
    process = tenon.start(*boot_args(demo_guest, fio_disk, 'lab.await=vdb'), '--disk', 'bad.img')
    read_until(process, 'guest: reads vdb', PATIENCE)
    os.truncate(path, 0)
    assert 'guest: cannot read vdb' in read_until(process, 'Power down', PATIENCE)
    assert process.wait(60) == 0


def test_throttle_changes_at_run_time(tenon):
    tenon.disk('a.img', 1 << 20)
    process = tenon.start('run', '--accel', 'soft', '--kernel', tenon.guest('halt', HALT),
                          '--disk', 'a.img,id=a,iops=1000,bandwidth=10M', '--qmp', 'qmp.sock')
    qmp = control(tenon)
    qmp.command('block_set_io_throttle', device='a', iops=100, iops_rd=0, iops_wr=0, bps=0,
                bps_rd=0, bps_wr=1 << 20)
    qmp.command('block_set_io_throttle', device='a', iops=0)
    assert 'number' in qmp.refused('block_set_io_throttle', device='a', iops=-1)
    qmp.command('quit')
    process.wait(30)
    qmp.close()
