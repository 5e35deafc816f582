"""Why a site did not let us in, in words with a remedy, from what ssh and Python there said."""

from scipion_cloud.sites import reach
from scipion_cloud.sites.model import Site

_SSH = 255  # ssh itself gave up
_NO_PROGRAM = (126, 127)


def refusal(site: Site, code: int, said: str) -> str:
    """The sentence for a command that ended with `code` and `said` this on its way out."""
    words = " ".join(said.split())[-400:]
    install = f"Run `scipion-cloud site install {site.name}`."
    if code == _SSH:
        return _by_ssh(site, words, install)
    if "StrEnum" in words or "SyntaxError" in words:
        return f"{site.python} there is older than 3.11. Name a newer one as `python`. ({words})"
    if "can't open file" in words:
        return f"Our program is not at {reach.bundle(site)}. {install}"
    if code in _NO_PROGRAM:
        return f"There is no {site.python} there. Name a Python of 3.11 or later as `python`. ({words})"
    return f"Our program there failed with code {code}: {words or 'it said nothing'}. {install}"


def _by_ssh(site: Site, words: str, install: str) -> str:
    if "Host key verification failed" in words or "HOST IDENTIFICATION" in words:
        return (
            f"The host key of {site.host} is not in {site.known_hosts_file}, or has changed. Ask its "
            f"operators whether that is right before you change the file. ({words})"
        )
    if "Permission denied" in words:
        return (
            f"{site.host} does not accept {site.key_file} for {site.user or 'our account'}. {install} It "
            "prints the line for authorized_keys there."
        )
    return f"{site.host} cannot be reached by SSH: {words}"
