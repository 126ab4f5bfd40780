"""
A small RFB viewer for tests: VNC authentication and VeNCrypt, Raw and ZRLE, keys and pointer.

SPDX-License-Identifier: GPL-2.0-or-later
"""
import socket
import ssl
import struct
import subprocess
import zlib

NONE, VNC, VENCRYPT = 1, 2, 19
X509_NONE, X509_VNC, X509_PLAIN = 260, 261, 262
RAW, ZRLE, DESKTOP_SIZE, QEMU_KEYS = 0, 16, -223, -258


class Refused(Exception):
    pass


def encrypt(password, challenge):
    """VNC authentication: DES, with the bits of each byte of the key mirrored."""
    key = bytes(int(format(byte, '08b')[::-1], 2) for byte in password.encode()[:8].ljust(8, b'\0'))
    return subprocess.run(['openssl', 'enc', '-des-ede3-ecb', '-nopad', '-K', (key * 3).hex()],
                          input=challenge, check=True, capture_output=True).stdout


class Viewer:
    """Connects and is let in, or raises Refused."""

    def __init__(self, where, password=None, security=None, encodings=(ZRLE, DESKTOP_SIZE),
                 version=b'008', authority=None):
        self.socket = connect(where)
        self.password = password
        self.authority = authority
        self.inflater = zlib.decompressobj()
        self.pixels = {}
        self.has_qemu_keys = False
        assert self.read(12) == b'RFB 003.008\n'
        self.send(b'RFB 003.' + version + b'\n')
        if version == b'003':
            chosen = self.u32()
        else:
            self.offered = list(self.read(self.u8()))
            chosen = security or self.offered[-1]
            self.send(bytes([chosen]))
        self.authenticate(chosen)
        if version == b'008' or password or chosen == VENCRYPT:
            self.result(version)
        self.send(b'\1')
        self.width, self.height = self.unpack('>HH')
        self.format = self.read(16)
        self.name = self.read(self.u32()).decode()
        self.canvas = bytearray(3 * self.width * self.height)
        self.send(struct.pack('>BxH%di' % len(encodings), 2, len(encodings), *encodings))

    # ---- bytes ----

    def read(self, size):
        data = b''
        while len(data) < size:
            piece = self.socket.recv(size - len(data))
            if not piece:
                raise Refused('the connection has ended')
            data += piece
        return data

    def send(self, data):
        self.socket.sendall(data)

    def unpack(self, form):
        return struct.unpack(form, self.read(struct.calcsize(form)))

    def u8(self):
        return self.unpack('>B')[0]

    def u32(self):
        return self.unpack('>I')[0]

    # ---- security ----

    def result(self, version):
        if self.u32():
            raise Refused(self.read(self.u32()).decode() if version == b'008' else 'refused')

    def authenticate(self, kind):
        if kind == 0:
            raise Refused(self.read(self.u32()).decode())
        if kind in (VNC, X509_VNC):
            self.send(encrypt(self.password, self.read(16)))
        elif kind == X509_PLAIN:
            self.send(struct.pack('>II', 4, len(self.password)) + b'user' + self.password.encode())
        elif kind == VENCRYPT:
            self.vencrypt()

    def vencrypt(self):
        assert self.read(2) == b'\0\2'
        self.send(b'\0\2')
        assert self.u8() == 0
        kinds = self.unpack('>%dI' % self.u8())
        self.send(struct.pack('>I', kinds[0]))
        assert self.u8() == 1
        context = ssl.create_default_context(cafile=str(self.authority))
        self.socket = context.wrap_socket(self.socket, server_hostname='localhost')
        self.authenticate(kinds[0])

    # ---- the screen ----

    def request(self, incremental=False):
        self.send(struct.pack('>BBHHHH', 3, incremental, 0, 0, self.width, self.height))

    def update(self):
        """Takes one update; the number of pixels in it."""
        kind, count = self.unpack('>BxH')
        assert kind == 0
        area = 0
        for _ in range(count):
            x, y, width, height, encoding = self.unpack('>HHHHi')
            if encoding == DESKTOP_SIZE:
                self.width, self.height = width, height
                self.canvas = bytearray(3 * width * height)
            elif encoding == QEMU_KEYS:
                self.has_qemu_keys = True
            elif encoding == RAW:
                self.raw(x, y, width, height, self.read(4 * width * height))
                area += width * height
            else:
                assert encoding == ZRLE, encoding
                self.zrle(x, y, width, height, self.inflater.decompress(self.read(self.u32())))
                area += width * height
        return area

    def picture(self):
        """The whole screen as rows of bytes: red, green, blue."""
        self.request()
        if not self.update():  # its size has changed
            self.request()
            self.update()
        return self.width, self.height, self.rows()

    def rows(self):
        return [bytes(self.canvas[3 * self.width * y:3 * self.width * (y + 1)])
                for y in range(self.height)]

    def put(self, x, y, row):
        at = 3 * (y * self.width + x)
        self.canvas[at:at + len(row)] = row

    def raw(self, left, top, width, height, data):
        for y in range(height):
            row = data[4 * width * y:4 * width * (y + 1)]
            rgb = bytearray(3 * width)
            rgb[0::3], rgb[1::3], rgb[2::3] = row[2::4], row[1::4], row[0::4]
            self.put(left, top + y, rgb)

    def zrle(self, left, top, width, height, data):
        for y in range(0, height, 64):
            for x in range(0, width, 64):
                data = self.tile(left + x, top + y, min(64, width - x), min(64, height - y), data)
        assert not data

    def tile(self, left, top, width, height, data):
        kind, data = data[0], data[1:]
        assert kind <= 16, 'run lengths are not sent'
        colours = [data[3 * i:3 * i + 3][::-1] for i in range(kind or width * height)]
        data = data[3 * len(colours):]
        if kind == 0:
            for y in range(height):
                self.put(left, top + y, b''.join(colours[y * width:(y + 1) * width]))
        elif kind == 1:
            for y in range(height):
                self.put(left, top + y, colours[0] * width)
        else:
            bits = 1 if kind == 2 else 2 if kind <= 4 else 4
            size = (width * bits + 7) // 8
            for y in range(height):
                row = int.from_bytes(data[y * size:(y + 1) * size], 'big')
                self.put(left, top + y, b''.join(
                    colours[row >> (8 * size - bits * (x + 1)) & (1 << bits) - 1] for x in range(width)))
            data = data[height * size:]
        return data

    # ---- input ----

    def key(self, keysym):
        """Pressed and released at once: a guest that ends by the key takes the connection with it."""
        self.send(b''.join(struct.pack('>BBxxI', 4, down, keysym) for down in (1, 0)))

    def qemu_key(self, keysym, code):
        self.send(b''.join(struct.pack('>BBHII', 255, 0, down, keysym, code) for down in (1, 0)))

    def pointer(self, x, y, buttons=0):
        self.send(struct.pack('>BBHH', 5, buttons, x, y))

    def close(self):
        self.socket.close()


def connect(where):
    """A path, ADDRESS:PORT, or what is connected already."""
    if hasattr(where, 'sendall'):
        return where
    if '/' in str(where):
        client = socket.socket(socket.AF_UNIX)
        client.settimeout(60)
        client.connect(str(where))
        return client
    address, _, port = where.rpartition(':')
    return socket.create_connection((address, int(port)), timeout=60)
