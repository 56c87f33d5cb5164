"""Publishing an import: once for its key, and only onto the version that it was made from."""

from agents.catalogue import Catalogue, CatalogueStore


class ImportedCatalogues(CatalogueStore):
    """The versions of the catalogue, with a compare-and-set for imports.

    The number of a version is its document's id, so inserting the number after the base is
    what only one of several imports of that base can do.
    """

    def published_as(self, source_key: str) -> int | None:
        """The version that was published under a key, if one was."""
        return self._published(source_key)

    def publish_after(self, base: int, catalogue: Catalogue, source_key: str) -> bool:
        """Make this the version after `base`; False when another one took that place.

        Either way that version is in force when this returns: a publisher that died before it
        could move the pointer holds up nobody.
        """
        self._ensure_indexes()
        self._insert(base + 1, catalogue, source_key)
        ours = self._published(source_key) == base + 1
        self._advance(base + 1)
        return ours
