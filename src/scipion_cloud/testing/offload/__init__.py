"""A site far away for tests: a real sshd with a door, and a loop that kills all."""

from scipion_cloud.testing.offload.far import Far, far_site

__all__ = ["Far", "far_site"]
