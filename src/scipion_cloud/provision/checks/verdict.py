"""The outcome of one check."""

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"  # works, with a catch
    MISSING = "missing"  # Scipion Cloud, or a part of it, cannot work


@dataclass(frozen=True)
class Check:
    """What was looked at, how it is, and what to do about it unless it is well."""

    name: str
    verdict: Verdict
    detail: str
    remedy: str = ""


def ok(name: str, detail: str) -> Check:
    """All is well."""
    return Check(name, Verdict.OK, detail)


def warning(name: str, detail: str, remedy: str) -> Check:
    """It works, with a catch."""
    return Check(name, Verdict.WARNING, detail, remedy)


def missing(name: str, detail: str, remedy: str) -> Check:
    """It cannot work."""
    return Check(name, Verdict.MISSING, detail, remedy)
