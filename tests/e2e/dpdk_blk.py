#!/usr/bin/env python3
"""
A vhost-user-blk back end on DPDK's librte_vhost, which speaks the protocol and maps the front end's memory; the
requests in the ring are carried out here. usage: dpdk_blk.py SOCKET FILE; ends with its standard input.

Status 77: the library is missing, or does not run on this host. Structures and numbers are those of DPDK 22.11 (ABI 23).

SPDX-License-Identifier: GPL-2.0-or-later
"""
import ctypes
import os
import select
import struct
import sys
import threading

IN, OUT, FLUSH, DISCARD, ZERO = 0, 1, 4, 11, 13
FEATURES = 1 << 32 | 1 << 30 | 1 << 14 | 1 << 13 | 1 << 9 | 1 << 6
PROTOCOL = 1 << 9 | 1 << 3 | 1 << 0  # CONFIG, REPLY_ACK, MQ
GET_CONFIG = 24
REPLY, NOT_HANDLED = 1, 2
NEXT, WRITE = 1, 2


class Region(ctypes.Structure):
    _fields_ = [('guest', ctypes.c_uint64), ('user', ctypes.c_uint64), ('host', ctypes.c_uint64), ('size', ctypes.c_uint64),
                ('mapped', ctypes.c_void_p), ('mapped_size', ctypes.c_uint64), ('fd', ctypes.c_int)]


class Ring(ctypes.Structure):
    _fields_ = [('desc', ctypes.c_void_p), ('avail', ctypes.c_void_p), ('used', ctypes.c_void_p), ('log', ctypes.c_uint64),
                ('call', ctypes.c_int), ('kick', ctypes.c_int), ('size', ctypes.c_uint16)]


DEVICE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int)
GONE = ctypes.CFUNCTYPE(None, ctypes.c_int)
MESSAGE = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_void_p)


class Operations(ctypes.Structure):
    _fields_ = [('new_device', DEVICE), ('destroy_device', GONE), ('vring_state_changed', ctypes.c_void_p),
                ('features_changed', ctypes.c_void_p), ('new_connection', DEVICE), ('destroy_connection', GONE),
                ('guest_notified', ctypes.c_void_p), ('reserved', ctypes.c_void_p)]


class External(ctypes.Structure):
    _fields_ = [('before', MESSAGE), ('after', ctypes.c_void_p)]


def peek(form, address):
    return struct.unpack(form, ctypes.string_at(address, struct.calcsize(form)))


class BackEnd:
    def __init__(self, vhost, path, file):
        self.vhost, self.file = vhost, file
        self.stop = None
        self.external = External(MESSAGE(self.message), None)
        self.operations = Operations(new_device=DEVICE(self.start), destroy_device=GONE(self.end),
                                     new_connection=DEVICE(self.connected), destroy_connection=GONE(lambda vid: None))
        for call, argument in ((vhost.rte_vhost_driver_register, 0), (vhost.rte_vhost_driver_set_features, FEATURES),
                               (vhost.rte_vhost_driver_set_protocol_features, PROTOCOL)):
            assert call(path, ctypes.c_uint64(argument)) == 0
        assert vhost.rte_vhost_driver_callback_register(path, ctypes.byref(self.operations)) == 0
        assert vhost.rte_vhost_driver_start(path) == 0

    def connected(self, vid):
        return self.vhost.rte_vhost_extern_callback_register(vid, ctypes.byref(self.external), None)

    def message(self, _, address):
        """The library leaves to us what a disk's configuration is."""
        request, _, length = peek('<III', address)
        if request != GET_CONFIG or length < 12:
            return NOT_HANDLED
        offset, size, _ = peek('<III', address + 12)
        whole = struct.pack('<QIIHBBIBBHIHHIIIIIB3x', os.fstat(self.file).st_size // 512, 0, 0, 0, 0, 0, 512, 0, 0, 0, 0, 1, 0,
                            1 << 20, 1, 1, 1 << 20, 1, 1)
        part = whole[offset:offset + size].ljust(size, b'\0')
        ctypes.memmove(address + 24, part, len(part))
        return REPLY

    def start(self, vid):
        table, ring = ctypes.c_void_p(), Ring()
        assert self.vhost.rte_vhost_get_mem_table(vid, ctypes.byref(table)) == 0
        assert self.vhost.rte_vhost_get_vhost_vring(vid, ctypes.c_uint16(0), ctypes.byref(ring)) == 0
        count, = peek('<I', table.value)
        self.regions = (Region * count).from_buffer_copy(ctypes.string_at(table.value + 8, count * ctypes.sizeof(Region)))
        self.vhost.rte_vhost_enable_guest_notification(vid, ctypes.c_uint16(0), 1)
        self.stop = os.pipe()
        self.thread = threading.Thread(target=self.serve, args=(vid, ring))
        self.thread.start()
        return 0

    def end(self, _):
        os.close(self.stop[1])
        self.thread.join()
        os.close(self.stop[0])

    def host(self, guest, length):
        for region in self.regions:
            if region.guest <= guest and guest + length <= region.guest + region.size:
                return region.host + guest - region.guest
        raise ValueError('%x is nowhere' % guest)

    def serve(self, vid, ring):
        done = 0
        while True:
            while done != peek('<H', ring.avail + 2)[0]:
                head, = peek('<H', ring.avail + 4 + 2 * (done % ring.size))
                entry = struct.pack('<II', head, self.carry_out(ring, head))
                ctypes.memmove(ring.used + 4 + 8 * (done % ring.size), entry, 8)
                done = (done + 1) & 0xffff
                ctypes.memmove(ring.used + 2, struct.pack('<H', done), 2)
            self.vhost.rte_vhost_vring_call(vid, ctypes.c_uint16(0))
            ready, _, _ = select.select([ring.kick, self.stop[0]], [], [])
            if self.stop[0] in ready:
                return
            os.eventfd_read(ring.kick)

    def carry_out(self, ring, head):
        """Bytes written to the front end's memory."""
        parts, index, flags = [], head, NEXT
        while flags & NEXT:
            guest, length, flags, following = peek('<QIHH', ring.desc + 16 * index)
            parts.append((self.host(guest, length), length, flags))
            index = following
        kind, _, sector = peek('<IIQ', parts[0][0])
        status, written = 0, 1
        for address, length, _ in parts[1:-1]:
            if kind == IN:
                ctypes.memmove(address, os.pread(self.file, length, sector * 512), length)
                written += length
            elif kind == OUT:
                os.pwrite(self.file, ctypes.string_at(address, length), sector * 512)
            elif kind in (DISCARD, ZERO):
                at, count, _ = peek('<QII', address)
                os.pwrite(self.file, bytes(count * 512), at * 512)
            sector += length // 512
        if kind == FLUSH:
            os.fdatasync(self.file)
        elif kind not in (IN, OUT, DISCARD, ZERO):
            status = 2
        ctypes.memmove(parts[-1][0], bytes([status]), 1)
        return written


def main():
    try:
        eal, vhost = ctypes.CDLL('librte_eal.so.23', ctypes.RTLD_GLOBAL), ctypes.CDLL('librte_vhost.so.23')
    except OSError as error:
        print(error)
        sys.exit(77)
    cores = os.sched_getaffinity(0)
    words = [word.encode() for word in ('dpdk', '--no-huge', '--no-pci', '--no-shconf', '--no-telemetry', '-m', '64', '--lcores',
                                        '0@%d' % min(cores))]
    if eal.rte_eal_init(len(words), (ctypes.c_char_p * len(words))(*words)) < 0:
        print('DPDK does not start: see its words')
        sys.exit(77)
    os.sched_setaffinity(0, cores)
    back_end = BackEnd(vhost, sys.argv[1].encode(), os.open(sys.argv[2], os.O_RDWR))
    print('serving', flush=True)
    sys.stdin.read()
    assert vhost.rte_vhost_driver_unregister(sys.argv[1].encode()) == 0
    del back_end


if __name__ == '__main__':
    main()
