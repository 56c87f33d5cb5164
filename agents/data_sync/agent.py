"""The data sync agent: brings the business's own data in, and carries the desk's out."""

from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator

from agents.data_sync.definitions import DefinitionsInvalid, load_definitions
from agents.data_sync.files import file_in
from agents.data_sync.imports import IMPORTS, Imported
from agents.data_sync.rows import FileUnreadable, Format, Row, read_rows
from agents.data_sync.store import CONFLICTS, RUNS, SYNCS
from agents.data_sync.syncs import Syncs, syncs_of
from agents.delivery import Delivery, deliver_by
from agents.stores import prepare
from orchestrator import Agent, TaskContext, TaskError
from orchestrator.engine import Engine
from orchestrator.errors import BadSettings, Conflict, NotFound

MAX_CONTENT_CHARS = 1_000_000
MAX_FILE_BYTES = 4 * MAX_CONTENT_CHARS
REPORTED_CELLS = 500
# A sync may be long; between its pages it looks whether it should stop.
SYNC_SOFT_LIMIT_S = 3600.0
SYNC_HARD_LIMIT_S = 3900.0


def open_office(engine: Engine) -> None:
    """Stores, and the syncs that the settings file names, with their timers.

    Raises:
        BadSettings: the file cannot be used; with everything that is wrong in it.
    """
    prepare(engine)
    try:
        definitions = load_definitions(engine.settings.syncs_file)
    except (DefinitionsInvalid, OSError) as error:
        raise BadSettings(f"SYNCS_FILE: {error}") from error
    syncs = syncs_of(engine)
    syncs.ensure_indexes()
    if engine.settings.syncs_file is not None:
        # A process that knows of no file says nothing of what the others' file names.
        syncs.declare(definitions)


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
    setup=open_office,
    where={"sink_integration": lambda settings: settings.syncs_file is not None},
    resources=[SYNCS, RUNS, CONFLICTS, IMPORTS],
)

SyncName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,59}$")]
DocumentId = Annotated[str, Field(min_length=1, max_length=300)]


class CatalogueImport(BaseModel):
    """Payload of `import_catalogue`: the file's content, or its path within the import folder.

    `source_key` names where the content is from: what was imported under a key is not
    imported again. By default each task is an import of its own. With `confirmed` an import that
    would be held goes live.
    """

    model_config = ConfigDict(extra="forbid")

    format: Format
    content: str | None = Field(None, min_length=1, max_length=MAX_CONTENT_CHARS)
    path: str | None = Field(None, min_length=1, max_length=300)
    source_key: str | None = Field(None, min_length=1, max_length=200)
    dry_run: bool = False
    confirmed: bool = False

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.content is None) == (self.path is None):
            raise ValueError("give either content or path")
        return self


class SyncWanted(BaseModel):
    """Payload of `run_sync`.

    `dry_run` tells the difference and changes nothing; `full` reads from the beginning, whatever
    was read before; `confirmed` deletes also where so much is gone that a person has to say so.
    """

    model_config = ConfigDict(extra="forbid")

    sync: SyncName
    dry_run: bool = False
    full: bool = False
    confirmed: bool = False


class ConflictDecided(BaseModel):
    """Payload of `resolve_sync_conflict`: which side is right."""

    model_config = ConfigDict(extra="forbid")

    conflict_id: DocumentId
    winner: Literal["source", "target"]


class ImportDecided(BaseModel):
    """Payload of `decide_catalogue_import`: whether a held import goes live."""

    model_config = ConfigDict(extra="forbid")

    import_id: DocumentId
    decision: Literal["approve", "reject"]


class VersionNamed(BaseModel):
    """Payload of `restore_catalogue`."""

    model_config = ConfigDict(extra="forbid")

    version: int = Field(ge=1, le=10**9)


class Pass(BaseModel):
    """Payload of what is done every so often: at most so much at once."""

    model_config = ConfigDict(extra="forbid")

    limit: int = Field(500, ge=1, le=10_000)


class Nothing(BaseModel):
    """Payload of what needs no telling."""

    model_config = ConfigDict(extra="forbid")


@agent.handles("import_catalogue", needs=["data_transformation", "mongodb_operations"])
def import_catalogue(context: TaskContext, wanted: CatalogueImport) -> dict[str, Any]:
    """Put the products of a file (`agents.data_sync.rows`) into the catalogue.

    The right rows make one new version, the wrong ones are reported. A version is published
    once for each import, and never over another import's that came in between. One with doubts
    (`agents.data_sync.imports`) is held for a person instead.

    Returns {dry_run, rows, wrong_rows, wrong: [{row, column, reason}], changes, published,
    version, held}: `changes` is `CatalogueChanges.to_document`, `version` the one that holds them,
    and `published` is false where there was nothing to change, on a dry run, or where `held`
    says why it waits. Of the wrong cells the first 500 are listed.

    Raises:
        TaskError: `file_unreadable`; `import_folder_missing`; `file_not_found`;
            `source_key_reused`, for another content.
    """
    try:
        content = wanted.content or _read(wanted.path or "", context.engine.settings.import_dir)
        rows = read_rows(content, wanted.format)
    except FileUnreadable as error:
        raise TaskError("file_unreadable", f"The file cannot be imported: {error}.") from None
    done = syncs_of(context.engine).imports.bring_in(
        context.task.id,
        rows,
        source_key=wanted.source_key,
        confirmed=wanted.confirmed,
        dry_run=wanted.dry_run,
    )
    return _report(wanted, rows, done)


def _report(wanted: CatalogueImport, rows: list[Row], done: Imported) -> dict[str, Any]:
    published = done.state == "published"
    return {
        "dry_run": wanted.dry_run,
        "rows": len(rows),
        "wrong_rows": done.applied.wrong_rows,
        "wrong": [cell.to_document() for cell in done.applied.wrong[:REPORTED_CELLS]],
        "changes": done.changes.to_document(),
        "published": published,
        "version": done.version if published else done.base.version,
        "held": list(done.doubts),
    }


def _read(path: str, import_dir: Path | None) -> str:
    """The text of a file of the import folder."""
    file = file_in(import_dir, path)
    try:
        if file.stat().st_size > MAX_FILE_BYTES:
            raise FileUnreadable(f"it is larger than {MAX_FILE_BYTES // 1_000_000} MB")
        return file.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise FileUnreadable("it is not UTF-8") from None
    except OSError:
        raise TaskError("file_not_found", "The file cannot be read.") from None


@agent.handles(
    "run_sync",
    needs=["data_transformation", "mongodb_operations"],
    soft_limit_s=SYNC_SOFT_LIMIT_S,
    hard_limit_s=SYNC_HARD_LIMIT_S,
)
def run_sync(context: TaskContext, wanted: SyncWanted) -> dict[str, Any]:
    """Run a sync of the settings file: read what is new, decide row by row, write.

    Goes on where it was when it runs again. Returns `store.Run.report`.

    Raises:
        RetryLater: another run of the sync is under way, or a side cannot be reached just now.
        TaskError: `no_such_sync`; or of a connector, when its patience is over at the latest.
    """
    return syncs_of(context.engine).run(
        wanted.sync,
        context.task.id,
        dry_run=wanted.dry_run,
        full=wanted.full,
        confirmed=wanted.confirmed,
        should_stop=context.should_stop,
        progress=lambda facts: context.progress(**facts),
    )


@agent.handles("resolve_sync_conflict", needs=["mongodb_operations"])
def resolve_sync_conflict(context: TaskContext, decided: ConflictDecided) -> dict[str, Any]:
    """Let one side of a conflict win, for a person. Returns {conflict_id, winner}.

    Raises:
        TaskError: `conflict_not_found`; `conflict_decided`.
    """
    return _for_person(
        context,
        "sync.resolve_conflict",
        decided.conflict_id,
        lambda syncs: syncs.resolve(
            decided.conflict_id, decided.winner, context.task.id, context.task.caller
        ),
        winner=decided.winner,
    )


@agent.handles("decide_catalogue_import", needs=["mongodb_operations"])
def decide_catalogue_import(context: TaskContext, decided: ImportDecided) -> dict[str, Any]:
    """Let a held import go live, or keep it out, for a person. Returns {import_id, state, version,
    base_version}.

    Raises:
        TaskError: `import_not_found`; `import_decided`.
    """
    return _for_person(
        context,
        f"catalogue.{decided.decision}",
        decided.import_id,
        lambda syncs: syncs.decide_import(decided.import_id, decided.decision, context.task.caller),
    )


@agent.handles("restore_catalogue", needs=["mongodb_operations"])
def restore_catalogue(context: TaskContext, named: VersionNamed) -> dict[str, Any]:
    """Put the catalogue of an old version in force again, as a new version: quotes keep theirs.
    Returns {version, restored, changes}.

    Raises:
        TaskError: `version_not_found`.
    """
    return _for_person(
        context,
        "catalogue.restore",
        str(named.version),
        lambda syncs: syncs.restore(named.version, context.task.id),
    )


@agent.handles("catalogue_versions", needs=["mongodb_operations"])
def catalogue_versions(context: TaskContext, _: Nothing) -> dict[str, Any]:
    """The newest versions of the catalogue: {current, versions: [{version, source, published_at,
    products}]}, newest first, at most 200."""
    return syncs_of(context.engine).versions()


# Asked for by the outbox only, which gives it the recipient as its ordering key.
@agent.handles("deliver", public=False)
def deliver(context: TaskContext, payload: Delivery) -> dict[str, Any]:
    """Write a quote to a sink, or answer a question; see `deliver_by`."""
    return deliver_by(syncs_of(context.engine).channels, context, payload)


@agent.handles("tell_quotes", needs=["external_api_integration"])
def tell_quotes(context: TaskContext, payload: Pass) -> dict[str, Any]:
    """Give word of new and changed quotes to every sink, once for each version. Returns
    {quotes, entries}."""
    return syncs_of(context.engine).tell_quotes(payload.limit)


@agent.handles("take_questions", needs=["mercadolibre_integration"])
def take_questions(context: TaskContext, payload: Pass) -> dict[str, Any]:
    """Accept new questions of MercadoLibre's buyers as messages. Returns {questions, accepted,
    postponed}: `postponed` is why the others are left to the next pass, or null."""
    return syncs_of(context.engine).take_questions(payload.limit)


# What is there is found by an index, so that looking often costs nothing.
agent.every(30, "tell_quotes")
agent.every(60, "take_questions")


def _for_person(
    context: TaskContext, action: str, subject: str, act: Any, **facts: Any
) -> dict[str, Any]:
    """What a person has decided, recorded."""
    syncs: Syncs = syncs_of(context.engine)
    try:
        with context.engine.audit.act(context.task.caller, action, subject, **facts) as outcome:
            done: dict[str, Any] = act(syncs)
            outcome |= {name: done[name] for name in ("version", "state") if name in done}
    except NotFound as error:
        raise TaskError("not_found", error.detail) from None
    except Conflict as error:
        raise TaskError("already_decided", error.detail, **error.facts) from None
    return done
