"""Which inputs lie at a site already, as far as home knows; no site is asked, for it may be down.

What was sent is noted in the site's ledger, with size and time of change, and forgotten with its folder
there. A file that has changed here since does not count. A wrong note makes an estimate wrong, and nothing
else: what is sent is what differs.
"""

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from scipion_cloud.broker import places
from scipion_cloud.broker.contents import Contents, collect
from scipion_cloud.broker.ledger import Ledger, Stamp
from scipion_cloud.broker.parcel import Parcel
from scipion_cloud.config import Config
from scipion_cloud.errors import InvalidInput, JobError
from scipion_cloud.sites.reading import read_sites
from scipion_cloud.tools.snapshot import read_project


def stamps(contents: Contents) -> dict[str, Stamp]:
    """How these files are now, by their path below a site's area; those that are gone are left out."""
    found = {}
    for tree in contents.trees:
        for path in tree.files:
            with suppress(OSError):
                now = (tree.root / path).stat()
                found[f"{tree.place}/{path}"] = Stamp(now.st_size, now.st_mtime_ns)
    return found


def there(config: Config, contents: Contents) -> Mapping[str, int]:
    """Bytes of these files that lie at each site where there are some, and are the same here."""
    wanted, found = stamps(contents), {}
    for site in read_sites(config).away:
        ledger = Ledger(places.ledger_file(config, site.name))
        if ledger.file.exists():
            with suppress(JobError):
                found[site.name] = sum(wanted[path].size for path in ledger.same(wanted))
    return {name: size for name, size in found.items() if size}


def files_of(config: Config, root: Path, names: list[str], source: Path | None = None) -> Contents:
    """The files behind names in a folder, as they are sent; nothing if they could not be sent at all."""
    source = source or places.default_source(config, root)
    try:
        return collect(names, root, places.project_place(config, root), [source] if source.is_dir() else [])
    except (InvalidInput, OSError):
        return Contents((), {})


def probably_read(config: Config, parcel: Parcel) -> Contents:
    """What a protocol will probably read, which only Scipion knows, after seconds: all that is in the folders
    of the protocols whose outputs it takes, and what their links lead to."""
    snapshot = read_project(parcel.root)
    me = snapshot.find(parcel.protocol) if parcel.protocol is not None else None
    before = [snapshot.find(number) for number in me.parents] if me else []
    folders = [run.run_dir for run in before if run and run.run_dir]
    return files_of(config, parcel.root, folders, parcel.source)
