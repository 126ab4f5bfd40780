"""
What tenond gives up before it reads the first request, and the launcher that starts programs for it.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import os
import pathlib
import signal

from conftest import wait_for


def status(pid):
    lines = pathlib.Path('/proc/%d/status' % pid).read_text().splitlines()
    return dict(line.split(':\t', 1) for line in lines if ':\t' in line)


def children(pid):
    words = pathlib.Path('/proc/%d/task/%d/children' % (pid, pid)).read_text().split()
    return [int(word) for word in words]


def test_confined(tenond, echo):
    """tenond can start nothing and has no capability; who keeps a VM has what `tenon run` needs."""
    own = status(tenond.process.pid)
    assert (own['Seccomp'], own['NoNewPrivs']) == ('2', '1')
    assert all(int(own[name], 16) == 0 for name in ('CapEff', 'CapPrm', 'CapInh', 'CapAmb'))
    launcher, = children(tenond.process.pid)
    assert status(launcher)['Name'] == 'tenond-launcher'
    if os.geteuid() == 0:  # others may not look into it
        held = [os.readlink(entry) for entry in pathlib.Path('/proc/%d/fd' % launcher).iterdir()]
        assert len(held) == 4, held  # the standard ones, and the socket to tenond
    tenond.create('one', echo)
    keeper = tenond.act('one', 'start', wait=20)['pid']
    assert keeper in children(launcher)
    before = status(os.getpid())
    for name in ('Seccomp', 'NoNewPrivs', 'CapEff', 'CapBnd'):
        assert status(keeper)[name] == before[name], name
    assert os.readlink('/proc/%d/cwd' % keeper) == str(tenond.state / 'vms' / 'one')
    # How it ended is told across the launcher, which keeps no zombie.
    os.kill(keeper, signal.SIGKILL)
    wait_for(lambda: tenond.get('one')['state'] == 'stopped', 20)
    assert 'killed by signal 9' in tenond.get('one')['last']['reason']
    assert children(launcher) == []
    tenond.stop()
    assert not os.path.exists('/proc/%d' % launcher) and not tenond.socket.exists()


def test_launcher_ends(tenond, echo):
    """Without its launcher tenond is of no use: it ends and says so, and the next one has the VMs."""
    tenond.create('one', echo)
    keeper = tenond.act('one', 'start', wait=20)['pid']
    launcher, = children(tenond.process.pid)
    os.kill(launcher, signal.SIGKILL)
    assert tenond.process.wait(20) == 1
    tenond.process.stdout.close()
    assert 'the launcher has ended; the VMs run on' in tenond.log()
    tenond.start()
    assert tenond.get('one')['pid'] == keeper
    wait_for(lambda: tenond.get('one')['state'] == 'running', 20)


def test_killed(tenond):
    """SIGKILL leaves no launcher behind."""
    launcher, = children(tenond.process.pid)
    tenond.kill()
    wait_for(lambda: not os.path.exists('/proc/%d' % launcher), 20)
    tenond.start()
