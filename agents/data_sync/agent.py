"""The data sync agent: brings the business's own data in."""

from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agents.catalogue import Catalogue, changes
from agents.data_sync.rows import Applied, FileUnreadable, Format, Row, apply_rows, read_rows
from agents.data_sync.versions import ImportedCatalogues
from agents.stores import prepare
from orchestrator import Agent, TaskContext, TaskError

MAX_CONTENT_CHARS = 1_000_000
MAX_FILE_BYTES = 4 * MAX_CONTENT_CHARS
REPORTED_CELLS = 500


agent = Agent(
    role="data_sync",
    name="Data sync agent",
    capabilities=[
        "google_sheets_sync",
        "mongodb_operations",
        "external_api_integration",
        "data_transformation",
        "mercadolibre_integration",
    ],
    slots=5,
    setup=prepare,
)


class CatalogueImport(BaseModel):
    """Payload of `import_catalogue`: the file's content, or its path within the import folder.

    `source_key` names where the content is from: what was imported under a key is not
    imported again. By default each task is an import of its own.
    """

    model_config = ConfigDict(extra="forbid")

    format: Format
    content: str | None = Field(None, min_length=1, max_length=MAX_CONTENT_CHARS)
    path: str | None = Field(None, min_length=1, max_length=300)
    source_key: str | None = Field(None, min_length=1, max_length=200)
    dry_run: bool = False

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.content is None) == (self.path is None):
            raise ValueError("give either content or path")
        return self


@agent.handles("import_catalogue", needs=["data_transformation", "mongodb_operations"])
def import_catalogue(context: TaskContext, wanted: CatalogueImport) -> dict[str, Any]:
    """Put the products of a file (`agents.data_sync.rows`) into the catalogue.

    The right rows make one new version, the wrong ones are reported. A version is published
    once for each import, and never over another import's that came in between.

    Returns {dry_run, rows, wrong_rows, wrong: [{row, column, reason}], changes, published,
    version}: `changes` is `CatalogueChanges.to_document`, `version` the one that holds them,
    and `published` is false where there was nothing to change, or on a dry run. Of the
    wrong cells the first 500 are listed.

    Raises:
        TaskError: `file_unreadable`; `import_folder_missing`; `file_not_found`;
            `source_key_reused`, for another content.
    """
    try:
        content = wanted.content or _read(wanted.path or "", context.engine.settings.import_dir)
        rows = read_rows(content, wanted.format)
    except FileUnreadable as error:
        raise TaskError("file_unreadable", f"The file cannot be imported: {error}.") from None
    catalogues = ImportedCatalogues(context.engine.database)
    source_key = f"import:{wanted.source_key or context.task.id}"
    while True:
        version = catalogues.published_as(source_key)
        if version is not None:
            base = catalogues.version(version - 1)
            applied = apply_rows(base, rows)
            if applied.catalogue != catalogues.version(version):
                raise TaskError(
                    "source_key_reused", "Other content was imported under this source_key."
                )
            return _report(wanted, rows, base, applied, version)
        base = catalogues.current()
        applied = apply_rows(base, rows)
        if wanted.dry_run or applied.catalogue == base:
            return _report(wanted, rows, base, applied, None)
        # Where another import was first, this one is put onto that one's version.
        catalogues.publish_after(base.version, applied.catalogue, source_key)


def _report(
    wanted: CatalogueImport, rows: list[Row], base: Catalogue, applied: Applied, version: int | None
) -> dict[str, Any]:
    return {
        "dry_run": wanted.dry_run,
        "rows": len(rows),
        "wrong_rows": applied.wrong_rows,
        "wrong": [cell.to_document() for cell in applied.wrong[:REPORTED_CELLS]],
        "changes": changes(base, applied.catalogue).to_document(),
        "published": version is not None,
        "version": base.version if version is None else version,
    }


def _read(path: str, import_dir: Path | None) -> str:
    """The text of a file of the import folder; links that lead out of it are not followed."""
    if import_dir is None:
        raise TaskError("import_folder_missing", "IMPORT_DIR is not set: send content.")
    folder = import_dir.resolve()
    try:
        file = (folder / Path(path)).resolve()
        if not file.is_relative_to(folder) or not file.is_file():
            raise TaskError("file_not_found", "There is no such file in the import folder.")
        if file.stat().st_size > MAX_FILE_BYTES:
            raise FileUnreadable(f"it is larger than {MAX_FILE_BYTES // 1_000_000} MB")
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise FileUnreadable("it is not UTF-8") from None
    except (OSError, ValueError) as error:
        if isinstance(error, FileUnreadable):
            raise
        raise TaskError("file_not_found", "The file cannot be read.") from None
