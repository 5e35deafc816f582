"""A pytest plugin that gives the whole test session a home of its own.

Load it with `-p scipion_cloud.testing.isolation`: it must come before Django's settings are read. The
installed Scipion environment (SCIPION_CLOUD_SOFTWARE, or its usual place) is shared; no other setting reaches
the tests.
"""

import os
import shutil
import tempfile

from scipion_cloud.config import ENV_PREFIX, Config, get_config

_OURS = [f"{ENV_PREFIX}{name.upper()}" for name in Config.model_fields if name != "software"]
for _name in _OURS:
    os.environ.pop(_name, None)

# short, for the desktops' sockets, and not below a folder that pytest keeps for later
HOME = tempfile.mkdtemp(prefix="sct-")
os.environ[f"{ENV_PREFIX}HOME"] = HOME
get_config.cache_clear()


def pytest_unconfigure() -> None:
    """Remove the home."""
    shutil.rmtree(HOME, ignore_errors=True)
