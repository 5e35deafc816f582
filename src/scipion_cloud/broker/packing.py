"""What a job needs is found, and sent to its site."""

from dataclasses import replace

from scipion_cloud.broker import places
from scipion_cloud.broker.contents import Contents, Tree, collect
from scipion_cloud.broker.parcel import Parcel
from scipion_cloud.broker.transfer import Progress, Told, Transfer
from scipion_cloud.config import Config
from scipion_cloud.errors import InvalidInput
from scipion_cloud.sites.model import Site, software_label
from scipion_cloud.tools.bridge import call


def pack(config: Config, site: Site, parcel: Parcel, place: str) -> Contents:
    """What goes to a site, where the parcel's root lies in `place` below the area.

    Scipion is asked if the parcel does not know. Raises InvalidInput for what cannot be sent, or when the
    site lacks software; BridgeError when Scipion cannot tell.
    """
    names, packages = list(parcel.needs or ()), set(parcel.packages)
    if parcel.needs is None:
        found = call("closure", parcel.root, config=config, protocol=parcel.protocol, run_db=parcel.run_db)
        names, packages = [*names, *found["files"]], packages | set(found["packages"])
    if missing := sorted(software_label(name) for name in packages if not site.has(name)):
        raise InvalidInput(f"{site.label} has no {' and no '.join(missing)}.")
    if (parcel.root / parcel.run).exists():
        names.append(parcel.run)
    source = parcel.source or places.default_source(config, parcel.root)
    return collect(names, parcel.root, place, [source] if source.is_dir() else [])


def _staged(contents: Contents, parcel: Parcel, stage: str) -> list[Tree]:
    """The trees of a job, with its run's folder as one of its own."""
    run, trees = f"{parcel.run}/", []
    for tree in contents.trees:
        mine = {p.removeprefix(run): size for p, size in tree.files.items() if p.startswith(run)}
        if tree.root != parcel.root or not mine:
            trees.append(tree)
            continue
        others = {p: size for p, size in tree.files.items() if not p.startswith(run)}
        trees += [replace(tree, files=others), Tree(tree.root / parcel.run, stage, mine)]
    return trees


def send(contents: Contents, parcel: Parcel, stage: str, transfer: Transfer, told: Told) -> int:
    """Bring all files to their places; how many bytes had to be sent. Raises as `Transfer.send` does.

    Those of the run's own folder go to `stage`: a job that still works there is not disturbed.
    """
    sent = 0
    for tree in _staged(contents, parcel, stage):
        latest = 0

        def on(now: Progress) -> None:
            nonlocal latest
            latest = now.done
            told(Progress(sent + now.done, now.rate))  # noqa: B023 - called in this round only

        if tree.files:
            transfer.send(tree.root, tree.files, tree.place, on)
        sent += latest
    return sent
