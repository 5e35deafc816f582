"""Scipion Cloud: cryo-EM processing with Scipion as a service."""

__version__ = "0.1.0"
