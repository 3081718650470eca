"""Fields of a protobuf message as bytes, to append to a file without reading it."""

from __future__ import annotations


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
