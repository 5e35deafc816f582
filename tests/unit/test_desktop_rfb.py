"""The reader of what browsers say to the VNC server."""

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scipion_cloud.desktops.rfb import EXTENDED_MOUSE_BUTTONS, PIECE, ClientStream, ProtocolError

HELLO = b"RFB 003.008\n" + b"\x01" + b"\x00"
HELLO_SENT = b"RFB 003.008\n" + b"\x01" + b"\x01"  # shared, whatever the browser asks for


def words(*values: int) -> bytes:
    return b"".join(struct.pack(">H", value) for value in values)


def encodings(values: list[int]) -> bytes:
    return b"\x02\x00" + words(len(values)) + b"".join(struct.pack(">i", value) for value in values)


def clipboard(text: bytes, sign: int = 1) -> bytes:
    return b"\x06\x00\x00\x00" + struct.pack(">i", sign * len(text)) + text


u8, u16 = st.integers(0, 255), st.integers(0, 65535)
LOOKS = st.one_of(
    st.binary(min_size=19, max_size=19).map(lambda body: b"\x00" + body),
    st.lists(st.integers(-400, 60).filter(lambda e: e != -316), max_size=60).map(encodings),
    st.builds(lambda i, a, b, c, d: bytes([3, i]) + words(a, b, c, d), u8, u16, u16, u16, u16),
    st.builds(lambda i, a, b: bytes([150, i]) + words(a, b, a, b), u8, u16, u16),
    st.binary(max_size=64).map(lambda p: b"\xf8\x00\x00\x00" + bytes(4) + bytes([len(p)]) + p),
)
ACTS = st.one_of(
    st.binary(min_size=7, max_size=7).map(lambda body: b"\x04" + body),
    st.builds(lambda mask, x, y: bytes([5, mask]) + words(x, y), st.integers(0, 127), u16, u16),
    st.binary(max_size=3 * PIECE).map(clipboard),
    st.binary(min_size=4, max_size=200).map(lambda body: clipboard(body, -1)),
    st.lists(st.binary(min_size=16, max_size=16), max_size=3).map(
        lambda screens: b"\xfb\x00" + words(800, 600) + bytes([len(screens), 0]) + b"".join(screens)
    ),
    st.just(b"\xfa\x00\x01\x02"),
    st.binary(min_size=10, max_size=10).map(lambda body: b"\xff\x00" + body),
)
MESSAGES = st.lists(st.one_of(LOOKS.map(lambda m: (True, m)), ACTS.map(lambda m: (False, m))), max_size=12)


@given(MESSAGES, st.lists(st.integers(1, 5000), max_size=60), st.booleans())
def test_any_chunking_gives_the_same_and_nothing_forbidden(
    messages: list[tuple[bool, bytes]], cuts: list[int], view_only: bool
) -> None:
    stream, out = ClientStream(view_only=view_only), b""
    data = HELLO + b"".join(message for _, message in messages)
    for cut in cuts:
        out += stream.feed(data[:cut])
        data = data[cut:]
    out += stream.feed(data)
    allowed = [message for looks, message in messages if looks or not view_only]
    assert out == HELLO_SENT + b"".join(allowed)


@given(st.binary(max_size=4000), st.booleans())
def test_noise_is_refused_or_measured(noise: bytes, view_only: bool) -> None:
    stream = ClientStream(view_only=view_only)
    try:
        out = stream.feed(HELLO + noise)
    except ProtocolError:
        return
    assert len(out) <= len(HELLO + noise)


def test_a_huge_message_is_not_kept_in_memory() -> None:
    stream = ClientStream(view_only=False)
    stream.feed(HELLO)
    sent = len(stream.feed(b"\x06\x00\x00\x00" + struct.pack(">I", 0x7FFFFFFF)))
    for _ in range(500):
        sent += len(stream.feed(bytes(10_000)))
        assert len(stream._held) < PIECE
    assert 5_000_008 - PIECE < sent <= 5_000_008


def test_the_server_never_hears_of_extended_mouse_buttons() -> None:
    out = ClientStream(view_only=False).feed(HELLO + encodings([7, -316, -223]) + b"\x05\x81" + words(3, 4))
    assert EXTENDED_MOUSE_BUTTONS not in out
    assert out == HELLO_SENT + encodings([7, 0, -223]) + b"\x05\x01" + words(3, 4)


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (b"RFB 003.003\n", "another protocol"),
        (b"GET / HTTP/1.1", "another protocol"),
        (b"RFB 003.008\n\x02", "security type 2"),
        (HELLO + b"\x07", "unknown type 7"),
        (HELLO + b"\xfd\x01\x00\x00", "unknown type 253"),
        (HELLO + b"\xff\x01" + bytes(10), "QEMU message 1"),
    ],
)
@pytest.mark.parametrize("view_only", [True, False])
def test_what_is_not_understood_is_refused(data: bytes, told: str, view_only: bool) -> None:
    with pytest.raises(ProtocolError, match=told):
        ClientStream(view_only=view_only).feed(data)
