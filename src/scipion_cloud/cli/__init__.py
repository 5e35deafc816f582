"""The command `scipion-cloud`."""

from scipion_cloud.cli.main import main

__all__ = ["main"]
