"""Who sends a request too slowly is not listened to for ever."""

import socket

from api.server import Body, Reading


class Chunks:
    """A reader of a body whose length is not told."""

    def __init__(self, *chunks: bytes) -> None:
        self.chunks = list(chunks)

    def read(self, size: int) -> bytes:
        return self.chunks.pop(0) if self.chunks else b""


class Measured(Chunks):
    """A reader of a body whose length is told."""

    def __init__(self, *chunks: bytes) -> None:
        super().__init__(*chunks)
        self.length = sum(map(len, chunks))

    def read(self, size: int) -> bytes:
        got = super().read(size)
        self.length -= len(got)
        return got


def test_what_takes_too_long_is_cut_off_and_nothing_else():
    here, there = socket.socketpair()
    other, beyond = socket.socketpair()
    reading = Reading(limit_s=0)
    with here, there, other, beyond:
        reading.begin(here)
        reading.begin(other)
        reading.end(other)
        assert reading.cut_off() == 1
        assert here.recv(1) == b""
        here.sendall(b"an answer")
        assert there.recv(9) == b"an answer"
        beyond.sendall(b"!")
        assert other.recv(1) == b"!"
        assert reading.cut_off() == 0


def test_time_that_is_left_is_left():
    here, there = socket.socketpair()
    reading = Reading(limit_s=60)
    with here, there:
        reading.begin(here)
        assert reading.cut_off() == 0
        there.sendall(b"!")
        assert here.recv(1) == b"!"


def test_a_body_tells_its_end_whether_its_length_is_known_or_not():
    for reader, reads in ((Measured(b"ab", b"c"), 2), (Chunks(b"ab", b"c"), 3)):
        told = []
        body = Body(reader, lambda told=told: told.append(True))
        for n in range(1, reads + 1):
            body.read(8192)
            assert bool(told) == (n == reads)
