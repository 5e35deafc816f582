"""TEMP"""

from pathlib import Path
from scipion_cloud.config import Config


def forms_file(config: Config) -> Path:
    """Where the forms of Scipion's protocols are kept, read once at installation."""
    return config.scipion_home / "forms.json"


def protocol_classes() -> tuple[str, ...]:
    """x"""
    return ("ProtImportMovies", "ProtRelionMotioncor")
