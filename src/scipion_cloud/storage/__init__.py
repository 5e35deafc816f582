"""Storages: where projects live. One small file for each kind, one contract for all."""

from scipion_cloud.storage.base import Capabilities, Kind, NewFile, Stat, Storage
from scipion_cloud.storage.kinds import KINDS, Credential, StorageKind
from scipion_cloud.storage.opening import open_storage

__all__ = [
    "KINDS",
    "Capabilities",
    "Credential",
    "Kind",
    "NewFile",
    "Stat",
    "Storage",
    "StorageKind",
    "open_storage",
]
