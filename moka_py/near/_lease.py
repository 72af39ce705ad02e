"""Leases and other conditional writes: scripts that the server runs.

A lease is a token in the place of a value. A fill compares the token and stores the value in one step, so any write by
another program voids the lease.
"""

from __future__ import annotations

import hashlib
from typing import NamedTuple

from moka_py.near._serializers import LEASE_LENGTH, LEASE_MARK


class Script(NamedTuple):
    """A Lua script with one key, and its digest."""

    source: bytes
    digest: str


def _script(source: str) -> Script:
    text = source.strip().encode("ascii")
    return Script(text, hashlib.sha1(text, usedforsecurity=False).hexdigest())


_IS_LEASE = f"""
local function is_lease(key)
  return redis.pcall('STRLEN', key) == {LEASE_LENGTH}
    and redis.call('GETRANGE', key, 0, {len(LEASE_MARK) - 1}) == '{"".join(f"\\{byte:03d}" for byte in LEASE_MARK)}'
end
"""

REPLACE = _script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
if ARGV[3] == '' then redis.call('SET', KEYS[1], ARGV[2])
else redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3]) end
return 1
""")
"""Stores a value if the key has exactly the given bytes. Arguments: these, the value, milliseconds or nothing."""

RELEASE = _script("""
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
return redis.call('DEL', KEYS[1])
""")
"""Deletes a key if it has exactly the given bytes."""

ADD = _script(
    _IS_LEASE
    + """
if redis.call('EXISTS', KEYS[1]) == 1 and not is_lease(KEYS[1]) then return 0 end
if ARGV[2] == '' then redis.call('SET', KEYS[1], ARGV[1])
else redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2]) end
return 1
"""
)
"""Stores a value if the key has none. A lease is not a value. Arguments: the value, milliseconds or nothing."""

TOUCH = _script(
    _IS_LEASE
    + """
if redis.call('EXISTS', KEYS[1]) == 0 or is_lease(KEYS[1]) then return 0 end
if ARGV[1] == '' then redis.call('PERSIST', KEYS[1])
else redis.call('PEXPIRE', KEYS[1], ARGV[1]) end
return 1
"""
)
"""Gives a value a new lifetime. Arguments: milliseconds or nothing."""
