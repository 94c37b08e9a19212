"""Frames of the PostgreSQL protocol (PostgreSQL documentation, "Message Formats"), and nothing of their meaning but a few."""

import socket
import struct

SSL_REQUEST = 80877103
GSS_REQUEST = 80877104
CANCEL_REQUEST = 80877102


class Closed(Exception):
    """The other end has gone."""


class Wire:
    """A connection, frame by frame."""

    def __init__(self, connection):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connection = connection
        self.buffer = b""

    def exactly(self, count):
        while len(self.buffer) < count:
            try:
                more = self.connection.recv(1 << 16)
            except OSError as error:
                raise Closed from error
            if not more:
                raise Closed
            self.buffer += more
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def startup(self):
        """A first packet, whole: it has no tag."""
        head = self.exactly(4)
        return head + self.exactly(struct.unpack("!I", head)[0] - 4)

    def frame(self):
        head = self.exactly(5)
        return head + self.exactly(struct.unpack("!I", head[1:])[0] - 4)

    def send(self, data):
        try:
            self.connection.sendall(data)
        except OSError as error:
            raise Closed from error

    def close(self):
        try:
            self.connection.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.connection.close()


def frame(tag, body):
    return tag + struct.pack("!I", len(body) + 4) + body


def query(text):
    return frame(b"Q", text + b"\0")


def startup(parameters):
    body = struct.pack("!I", 3 << 16) + b"".join(k.encode() + b"\0" + v.encode() + b"\0" for k, v in parameters.items())
    body += b"\0"
    return struct.pack("!I", len(body) + 4) + body


def parameters(packet):
    words = packet[8:].split(b"\0")
    return {words[i].decode(): words[i + 1].decode() for i in range(0, len(words) - 1, 2) if words[i]}


def code(packet):
    """The number in a first packet: a version, or a request."""
    return struct.unpack("!I", packet[4:8])[0]


def fields(frame):
    """The fields of an ErrorResponse or NoticeResponse."""
    return {part[:1].decode(): part[1:].decode(errors="replace") for part in frame[5:].split(b"\0") if part}


def row(frame):
    """The cells of a DataRow."""
    count, at, cells = struct.unpack("!H", frame[5:7])[0], 7, []
    for _ in range(count):
        length = struct.unpack("!i", frame[at : at + 4])[0]
        at += 4
        cells.append(None if length < 0 else frame[at : at + length].decode())
        at += max(length, 0)
    return cells
