"""Fields of a protobuf message as bytes: read, or written to append to a file."""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _FIXED = 0, {1: 8, 5: 4}  # wire types without a length


def tag(number: int) -> bytes:
    """Return what precedes a field that has a length."""
    return bytes([number << 3 | 2])  # wire type 2: a length, then that many bytes


def message_field(number: int, payload: bytes) -> bytes:
    """Return a field of bytes, a string or a message."""
    return tag(number) + varint(len(payload)) + payload


def varint(value: int) -> bytes:
    """Return a number as protobuf writes it."""
    groups = []
    while value > 0x7F:
        groups.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*groups, value])


def fields(message: memoryview) -> Iterator[tuple[int, memoryview, memoryview]]:
    """Yield number, payload and all bytes of each field, in order.

    payload: what has a length, without it; empty for a number.
    """
    at = 0
    while at < len(message):
        start = at
        key, at = _number(message, at)
        payload = message[:0]
        if key & 7 == _VARINT:
            _, at = _number(message, at)
        elif key & 7 in _FIXED:
            at += _FIXED[key & 7]
        else:
            size, at = _number(message, at)
            payload, at = message[at : at + size], at + size
        yield key >> 3, payload, message[start:at]


def texts(message: memoryview, number: int) -> list[str]:
    """Return the strings of a message's field."""
    return [str(payload, "utf-8") for found, payload, _ in fields(message) if found == number]


def _number(message: memoryview, at: int) -> tuple[int, int]:
    """Return the number that begins at a place, and the place after it."""
    value = shift = 0
    while True:
        byte = message[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at
