"""The settings with which Django's own runner runs its cache tests.

MOKA_PY_DJANGO_SERVER is the address of a server, if they run with `NearCache`.
"""

import os

from test_sqlite import *  # noqa: F403

TEST_RUNNER = "django_runner.MokaRunner"

if server := os.environ.get("MOKA_PY_DJANGO_SERVER"):
    CACHES = {
        "default": {
            "BACKEND": "django.core.cache.backends.redis.RedisCache",
            "LOCATION": server,
            "KEY_PREFIX": "suite",
        }
    }
