"""
A terminal for a program under test.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import errno
import fcntl
import os
import pty
import select
import struct
import termios

from conftest import wait_for


class Terminal:
    """A pseudo-terminal whose session the command leads, with a look at its mode."""

    def __init__(self, tenon, *args):
        self.master, self.slave = pty.openpty()
        fcntl.ioctl(self.slave, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 80, 0, 0))
        self.before = termios.tcgetattr(self.slave)
        self.seen = b''
        self.process = tenon.start(*args, stdin=self.slave, stdout=self.slave, stderr=self.slave,
                                   start_new_session=True,
                                   preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))

    def read(self):
        while select.select([self.master], [], [], 0)[0]:
            try:
                piece = os.read(self.master, 65536)
            except OSError as error:
                if error.errno == errno.EIO:
                    return self.seen
                raise
            if not piece:
                break
            self.seen += piece
        return self.seen

    def expect(self, text, timeout=10):
        wait_for(lambda: text in self.read(), timeout, lambda: '%r in %r' % (text, self.seen))

    def type(self, text):
        os.write(self.master, text)

    def is_raw(self):
        return not termios.tcgetattr(self.slave)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def wait_raw(self):
        wait_for(self.is_raw, 10, lambda: 'raw mode; %r' % self.read())

    def expect_restored(self):
        assert termios.tcgetattr(self.slave) == self.before

    def end(self, timeout=10):
        def ended():
            self.read()
            return self.process.poll() is not None
        wait_for(ended, timeout, lambda: 'the end; %r' % self.seen)
        self.read()
        return self.process.returncode

    def close(self):
        os.close(self.master)
        os.close(self.slave)
