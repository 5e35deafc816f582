"""Scipion Cloud's Scipion plugin.

Scipion imports it in every process, so that projects stay sound whoever works on them: see `patches`.
It imports nothing of `scipion_cloud`; the two sides speak JSON over a subprocess (`worker`, `chain`).
"""

import pwem

from scipion_cloud_em.patches import apply_patches

__version__ = "0.1.0"
_logo = ""
_references = []


class Plugin(pwem.Plugin):
    """The plugin as Scipion knows it; it brings a view of the protocols, no program of its own."""

    _url = "https://github.com/scipion-em"

    @classmethod
    def _defineVariables(cls):
        """Nothing to configure."""

    @classmethod
    def getEnviron(cls):
        """Programs run in the environment of this process."""
        return None

    @classmethod
    def defineBinaries(cls, env):
        """Nothing to install."""


apply_patches()
