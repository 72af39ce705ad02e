"""The protocol of Redis, versions 2 and 3: reads commands and encodes replies.

A reply is None, a bool, an int, a float, bytes or str (a bulk string), a list (an array), a dict (a map), or one of the
types below. RESP2 has no map, bool or double, so they become arrays, integers and bulk strings there. It has no push
either, so a push is an error of the test.
"""


class Status(str):
    """A simple string, such as `+PONG`."""

    __slots__ = ()


class Failure(str):
    """An error reply, such as `-BUSY ...`."""

    __slots__ = ()


class Push(list):
    """A message that answers no command."""

    __slots__ = ()


class Raw(bytes):
    """Bytes that are sent exactly as they are."""

    __slots__ = ()


class ProtocolError(Exception):
    """The client sent what is no command."""


def encode(reply, protocol):
    """Return the bytes of a reply in a version of the protocol, 2 or 3."""
    match reply:
        case Raw():
            return bytes(reply)
        case None:
            return b"_\r\n" if protocol == 3 else b"$-1\r\n"
        case bool():
            return (b"#t\r\n" if reply else b"#f\r\n") if protocol == 3 else b":%d\r\n" % reply
        case int():
            return b":%d\r\n" % reply
        case float():
            return b",%r\r\n" % reply if protocol == 3 else encode(repr(reply), protocol)
        case Status():
            return b"+" + reply.encode() + b"\r\n"
        case Failure():
            return b"-" + reply.encode() + b"\r\n"
        case str():
            return encode(reply.encode(), protocol)
        case bytes():
            return b"$%d\r\n%b\r\n" % (len(reply), reply)
        case Push() if protocol == 2:
            raise AssertionError("RESP2 has no push messages")
        case list():
            kind = b">" if isinstance(reply, Push) else b"*"
            return kind + b"%d\r\n" % len(reply) + b"".join(encode(each, protocol) for each in reply)
        case dict():
            pairs = [each for pair in reply.items() for each in pair]
            head = b"%%%d\r\n" % len(reply) if protocol == 3 else b"*%d\r\n" % len(pairs)
            return head + b"".join(encode(each, protocol) for each in pairs)
    raise TypeError(f"this cannot be a reply: {reply!r}")


def read_command(file):
    """Read one command from a binary file. Return its words, as a list of bytes, or None at the end of the file."""
    line = file.readline()
    if not line.endswith(b"\r\n"):
        return None
    if line[:1] != b"*":
        return line.split()  # as typed into telnet
    words = []
    for _ in range(int(line[1:])):
        head = file.readline()
        if not head.endswith(b"\r\n"):
            return None
        if head[:1] != b"$":
            raise ProtocolError(f"expected '$', got {head!r}")
        size = int(head[1:])
        word = file.read(size + 2)
        if len(word) != size + 2:
            return None
        words.append(word[:-2])
    return words
