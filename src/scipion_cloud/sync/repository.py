"""A project in its primary storage: its generations, their files, and how the next one is made."""

import uuid
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from datetime import UTC, datetime

from scipion_cloud.errors import Conflict, LeaseLost, NotFound, StorageExists, StorageMissing
from scipion_cloud.storage import Storage
from scipion_cloud.sync.entry import Entry, EntryKind, parents_of
from scipion_cloud.sync.fence import Fence
from scipion_cloud.sync.fetch import fetch
from scipion_cloud.sync.generation import Generation
from scipion_cloud.sync.intent import Intent, intent_keys, read_intent
from scipion_cloud.sync.ledger import Ledger, missing
from scipion_cloud.sync.manifest import Manifest
from scipion_cloud.sync.progress import Progress
from scipion_cloud.sync.rollback import conform
from scipion_cloud.sync.saving import Saving


class Repository:
    """The project in a storage. Safe to use from many threads; changed under a lease only."""

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.ledger = Ledger(storage)

    def generations(self) -> list[Generation]:
        """All that can be restored, newest first."""
        return self.ledger.generations()

    def latest(self) -> Generation | None:
        """The project as it was last saved; None if it never was."""
        return self.ledger.latest()

    def generation(self, number: int) -> Generation:
        """One of `generations`. Raises NotFound."""
        for found in self.generations():
            if found.number == number:
                return found
        raise missing(number)

    def manifest(self, number: int) -> Manifest:
        """The files of a generation. Raises NotFound, SyncError if it is damaged."""
        return self.ledger.manifest(number)

    def fetch(self, entry: Entry, fd: int, *, progress: Progress | None = None) -> None:
        """Write a file's bytes to an open, empty local file, and verify them there; see `fetch.fetch`."""
        fetch(self.storage, entry, fd, progress=progress)

    def recover(self, fence: Fence) -> bool:
        """Roll back what unfinished saves have left; whether there was anything. The same again does no harm.

        To be called once the lease is held, before anything is read to be worked on. Raises LeaseLost,
        StorageError, and SyncError if the note of a save is damaged.
        """
        intents = self._intents()
        for intent in intents:
            self._end(intent, self._claim(intent, fence), fence)
        return bool(intents)

    def saving(
        self,
        base: Generation | None,
        manifest: Mapping[bytes, Entry],
        touched: Iterable[bytes],
        fence: Fence,
        note: str = "",
        *,
        resume: str | None = None,
    ) -> Saving:
        """Begin a save of the `touched` paths on top of `base`, whose files `manifest` tells.

        What unfinished saves have left is rolled back first; with the id of one of them in `resume`, the new
        files that it has put stay there. Raises Conflict if `base` is not the latest generation.
        """
        paths = frozenset(touched)
        earlier: Intent | None = None
        unsure: frozenset[bytes] = frozenset()
        for intent in self._intents():
            made = self._claim(intent, fence)
            if intent.save == resume and made is None:
                earlier = intent
                unsure = frozenset(path for path in intent.touched & paths if _may_stay(path, manifest))
            else:
                self._end(intent, made, fence)
        numbers = self.ledger.numbers()
        latest = self.latest()
        if (latest and latest.number) != (base and base.number):
            raise Conflict(
                f"The project is at generation {latest and latest.number}, but what is to be saved was "
                f"made from generation {base and base.number}. Nothing was saved."
            )
        intent = Intent(
            save=uuid.uuid4().hex,
            epoch=fence.epoch,
            deployment=fence.deployment,
            base=base.number if base else None,
            number=(numbers[0] if numbers else 0) + 1,
            touched=paths,
        )
        fence.check()
        with suppress(StorageExists):  # by this very call, whose answer was lost and asked for again
            self.storage.create(intent.key, intent.encode())
        if base is not None:
            self.storage.flush()  # else a power cut could leave the changes without the note
        if earlier is not None:
            self._end(earlier, None, fence, leave=unsure)

        def give_up(tried: bool) -> None:
            self._end(intent, self._claim(intent, fence) if tried else None, fence)

        def put_right(made: Manifest, wrong: list[bytes]) -> None:
            conform(self.storage, made, wrong, self.needed_in(), fence.check)

        return Saving(self.ledger, base, manifest, intent, fence, note, give_up, put_right, unsure)

    def _intents(self) -> list[Intent]:
        found = []
        for key in intent_keys(self.storage):
            with suppress(StorageMissing):  # ended since it was listed
                found.append(read_intent(self.storage, key))
        return found

    def _claim(self, intent: Intent, fence: Fence) -> Generation | None:
        """Make sure that a save cannot be committed any more; the generation that it has made, if it has.

        A void takes the number that the save would need, in the same way as the save does: one of them wins.
        """
        if intent.epoch > fence.epoch:
            raise LeaseLost(
                "The project was taken over. Nothing was changed; the working copy is left as it is."
            )
        fence.confirm()
        void = Generation(
            number=intent.number,
            parent=intent.base,
            epoch=fence.epoch,
            created=datetime.now(UTC),
            deployment=fence.deployment,
            host=fence.host,
            user=fence.user,
            note="",
            files=0,
            bytes=0,
            save=intent.save,
            void=True,
        )
        made = self.ledger.append(void, Manifest())
        return None if made.void else made

    def _end(
        self, intent: Intent, made: Generation | None, fence: Fence, leave: frozenset[bytes] = frozenset()
    ) -> None:
        """Make what a save has touched as the latest generation has it, and forget the save."""
        latest = self.latest()
        if made is None or latest is None or latest.number != made.number:
            manifest = self.manifest(latest.number) if latest else Manifest()
            conform(self.storage, manifest, intent.touched, self.needed_in(latest), fence.check, leave)
        self.storage.remove(intent.key)

    def needed_in(self, latest: Generation | None = None) -> Callable[[frozenset[bytes]], frozenset[bytes]]:
        """Tells which digests are in generations, those before `latest` if it is given."""

        def needed(digests: frozenset[bytes]) -> frozenset[bytes]:
            found: set[bytes] = set()
            for generation in self.generations():
                if found == digests:
                    break
                if latest is None or generation.number < latest.number:
                    with suppress(NotFound):  # expired since it was listed
                        manifest = self.manifest(generation.number)
                        found |= {entry.digest for entry in manifest.values()} & digests
            return frozenset(found)

        return needed


def _may_stay(path: bytes, manifest: Mapping[bytes, Entry]) -> bool:
    """Whether a new file can stand beside all that a manifest has: not in a folder where that has a file."""
    above = (manifest[parent] for parent in parents_of(path) if parent in manifest)
    return path not in manifest and all(entry.kind is EntryKind.FOLDER for entry in above)
