"""Runs each program of SQLAlchemy's dogpile example twice, and prints the numbers of statements as JSON.

usage: sqlalchemy_example.py SOURCE BACKEND, where SOURCE is the source distribution of SQLAlchemy
"""

import json
import os
import random
import runpy
import sys
import warnings

from dogpile.cache.region import make_region
from sqlalchemy import event, exc

sys.path.insert(0, sys.argv[1])
# The example makes random rows.
random.seed(1)
# It asks before it makes this folder.
os.mkdir("dogpile_data")
# It calls functions by their old names.
warnings.simplefilter("ignore", exc.MovedIn20Warning)
sys.stdout, out = sys.stderr, sys.stdout

from examples.dogpile_caching import environment
from examples.dogpile_caching import model as _model  # noqa: F401

environment.engine.echo = False
region = make_region(key_mangler=environment.md5_key_mangler)
environment.regions["default"] = region.configure(sys.argv[2], arguments={"capacity": 1000})

statements = []
event.listen(environment.engine, "before_cursor_execute", lambda _conn, _cursor, text, *_rest: statements.append(text))
counts = {}
for name in ("helloworld", "relationship_caching", "advanced"):
    counts[name] = []
    for _ in range(2):
        statements.clear()
        runpy.run_module(f"examples.dogpile_caching.{name}")
        counts[name].append(len(statements))
        environment.Session.remove()
environment.engine.dispose()
print(json.dumps(counts), file=out)
