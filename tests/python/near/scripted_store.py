"""The data of the scripted server: the commands that a cache needs, on a clock that the test moves.

Each command is a method, `do_` and its name. It gets the database and the words, and returns a reply. A method records
the keys that it changed, as Redis does for the tracking of clients.
"""

import fnmatch
import hashlib
import math

from near.resp import Failure, Status

OK = Status("OK")
SYNTAX_ERROR = Failure("ERR syntax error")
# Marks that every key was removed.
FLUSHED = None


class Database:
    """The keys of one database. The deadline of a key is in milliseconds, or infinite."""

    def __init__(self):
        self.values = {}
        self.deadlines = {}


class Store:
    """All databases, the clock, and the keys that changed since `take_changes`."""

    def __init__(self, version="7.0.15"):
        self.version = version
        # The time in milliseconds. It has a fraction of a second, as real times have.
        self.now = 1_800_000_000_123
        self.databases = {}
        # Functions that stand for Lua scripts, by source: function(store, database, keys, arguments) -> reply.
        self.scripts = {}
        self._loaded = {}
        self._changes = []

    def database(self, number):
        return self.databases.setdefault(number, Database())

    def take_changes(self):
        """Return the changed keys in order, with FLUSHED for a removal of all keys, and forget them."""
        changes, self._changes = self._changes, []
        return changes

    def advance(self, seconds):
        """Move the clock, and remove the keys that expire, as the server's own cycle does."""
        self.now += round(seconds * 1000)
        for database in self.databases.values():
            for key in [key for key, deadline in database.deadlines.items() if deadline <= self.now]:
                self.delete(database, key)

    def get(self, database, key):
        return database.values.get(key)

    def set(self, database, key, value, deadline=math.inf):
        database.values[key] = value
        database.deadlines[key] = deadline
        self._changes.append(key)
        if deadline <= self.now:
            self.delete(database, key)

    def delete(self, database, key):
        """Remove a key, and return whether it was present."""
        if database.values.pop(key, None) is None:
            return False
        del database.deadlines[key]
        self._changes.append(key)
        return True

    def execute(self, number, words):
        """Execute a command in a database, and return its reply."""
        name, *arguments = words
        method = getattr(self, f"do_{name.decode().lower()}", None)
        if method is None:
            return Failure(f"ERR unknown command '{name.decode()}'")
        try:
            return method(self.database(number), *arguments)
        except (TypeError, IndexError):
            return Failure(f"ERR wrong number of arguments for '{name.decode().lower()}' command")
        except ValueError:
            return Failure("ERR value is not an integer or out of range")

    def do_get(self, database, key):
        return self.get(database, key)

    def do_mget(self, database, *keys):
        return [self.get(database, key) for key in keys]

    def do_set(self, database, key, value, *options):
        options = list(options)
        deadline, flags = math.inf, set()
        while options:
            match options.pop(0).upper():
                case b"EX":
                    deadline = self.now + self._positive(options.pop(0)) * 1000
                case b"PX":
                    deadline = self.now + self._positive(options.pop(0))
                case b"EXAT":
                    deadline = self._positive(options.pop(0)) * 1000
                case b"PXAT":
                    deadline = self._positive(options.pop(0))
                case (b"NX" | b"XX" | b"GET" | b"KEEPTTL") as flag:
                    flags.add(flag)
                case _:
                    return SYNTAX_ERROR
        if b"NX" in flags and b"XX" in flags:
            return SYNTAX_ERROR
        old = self.get(database, key)
        is_blocked = (b"NX" in flags and old is not None) or (b"XX" in flags and old is None)
        if not is_blocked:
            if b"KEEPTTL" in flags:
                deadline = database.deadlines.get(key, math.inf)
            self.set(database, key, value, deadline)
        if b"GET" in flags:
            return old
        return None if is_blocked else OK

    def do_setnx(self, database, key, value):
        return int(self.do_set(database, key, value, b"NX") is OK)

    def do_setex(self, database, key, seconds, value):
        return self.do_set(database, key, value, b"EX", seconds)

    def do_psetex(self, database, key, milliseconds, value):
        return self.do_set(database, key, value, b"PX", milliseconds)

    def do_mset(self, database, *pairs):
        for key, value in zip(pairs[::2], pairs[1::2], strict=True):
            self.set(database, key, value)
        return OK

    def do_getdel(self, database, key):
        old = self.get(database, key)
        self.delete(database, key)
        return old

    def do_del(self, database, *keys):
        return sum(self.delete(database, key) for key in keys)

    do_unlink = do_del

    def do_exists(self, database, *keys):
        return sum(key in database.values for key in keys)

    def do_pttl(self, database, key):
        if key not in database.values:
            return -2
        deadline = database.deadlines[key]
        return -1 if deadline == math.inf else deadline - self.now

    def do_ttl(self, database, key):
        left = self.do_pttl(database, key)
        return left if left < 0 else round(left / 1000)

    def do_pexpireat(self, database, key, deadline):
        if key not in database.values:
            return 0
        self.set(database, key, database.values[key], int(deadline))
        return 1

    def do_pexpire(self, database, key, milliseconds):
        return self.do_pexpireat(database, key, self.now + int(milliseconds))

    def do_expire(self, database, key, seconds):
        return self.do_pexpire(database, key, int(seconds) * 1000)

    def do_persist(self, database, key):
        if database.deadlines.get(key, math.inf) == math.inf:
            return 0
        self.set(database, key, database.values[key])
        return 1

    def do_scan(self, database, cursor, *options):
        """Return at most COUNT keys from a position, which is the cursor."""
        named = {name.upper(): value for name, value in zip(options[::2], options[1::2], strict=True)}
        keys = sorted(database.values)
        first, count = int(cursor), int(named.get(b"COUNT", 10))
        found = [key for key in keys[first : first + count] if matches(key, named.get(b"MATCH", b"*"))]
        return [b"%d" % (first + count if first + count < len(keys) else 0), found]

    def do_keys(self, database, pattern):
        return [key for key in sorted(database.values) if matches(key, pattern)]

    def do_dbsize(self, database):
        return len(database.values)

    def do_flushdb(self, database, *_):
        database.values.clear()
        database.deadlines.clear()
        self._changes.append(FLUSHED)
        return OK

    def do_flushall(self, _, *options):
        for database in self.databases.values():
            self.do_flushdb(database)
        return OK

    def do_time(self, _):
        return [b"%d" % (self.now // 1000), b"%d" % (self.now % 1000 * 1000)]

    def do_info(self, _, *sections):
        return f"# Server\r\nredis_version:{self.version}\r\nredis_mode:standalone\r\n# Replication\r\nrole:master\r\n"

    def do_echo(self, _, word):
        return word

    def do_script(self, _, action, *arguments):
        match action.upper():
            case b"LOAD":
                return self._load(arguments[0])
            case b"EXISTS":
                return [int(digest in self._loaded) for digest in arguments]
            case b"FLUSH":
                self._loaded.clear()
                return OK
        return SYNTAX_ERROR

    def do_eval(self, database, source, count, *rest):
        self._load(source)
        return self._run(database, source, int(count), rest)

    def do_evalsha(self, database, digest, count, *rest):
        source = self._loaded.get(digest.lower())
        if source is None:
            return Failure("NOSCRIPT No matching script. Please use EVAL.")
        return self._run(database, source, int(count), rest)

    def _load(self, source):
        digest = hashlib.sha1(source).hexdigest().encode()
        self._loaded[digest] = source
        return digest

    def _run(self, database, source, count, rest):
        function = self.scripts.get(source.decode())
        if function is None:
            return Failure("ERR the test registered no function for this script")
        return function(self, database, list(rest[:count]), list(rest[count:]))

    @staticmethod
    def _positive(word):
        number = int(word)
        if number <= 0:
            raise ValueError(word)
        return number


def matches(key, pattern):
    """Return whether a key matches a glob pattern of Redis, in which a backslash escapes the next character."""
    text, escaped = [], False
    for character in pattern.decode("latin-1"):
        if escaped:
            text.append(f"[{character}]" if character in "*?[" else character)
            escaped = False
        elif character == "\\":
            escaped = True
        else:
            text.append(character)
    return fnmatch.fnmatchcase(key.decode("latin-1"), "".join(text))
