"""What the routes of syncs and of the catalogue take and give, with an example of each."""

import datetime as dt
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field

from api.pages import NextPageToken, PageQuery
from api.schemas import Strict

Document = dict[str, Any]
RunState = Literal["running", "done", "failed", "held"]
RUN_ID = "019ab7e1c0aa000c1b2c3d4e5f607182"
CONFLICT_ID = f"{RUN_ID}.5feceb66ffc86f38"
IMPORT_ID = "019ab7e2d1bb000d2b3c4d5e6f708192"


class Sync(BaseModel):
    """A sync of the settings file, and how it stands."""

    id: str = Field(description="Its name.")
    source: str = Field(description="The type of the side that rows come from.")
    target: str = Field(description="The type of the side that rows go to.")
    schedule: str | None = Field(description="In cron form, in the zone of the business.")
    conflicts: Literal["theirs", "ours", "newest", "ask"]
    deletes: bool
    active: str | None = Field(description="The run that is under way.")
    last: Document | None = Field(description="{run, state, at, counts} of the last run.")


class SyncList(BaseModel):
    """Every sync of the settings file."""

    syncs: list[Sync]


class SyncStart(Strict):
    """How to run a sync."""

    dry_run: bool = Field(False, description="Tell the difference, and change nothing.")
    full: bool = Field(False, description="Read from the beginning, whatever was read before.")
    confirmed: bool = Field(
        False, description="Delete also where so much is gone that a person has to say so."
    )


class WrongCell(BaseModel):
    """A cell that kept its row from going in."""

    row: int | str
    column: str
    value: str
    reason: str


class SyncRun(BaseModel):
    """A run of a sync."""

    id: str
    sync: str
    state: RunState
    dry_run: bool
    full: bool
    counts: dict[str, int]
    wrong: list[WrongCell] = Field(description="The first 500 cells that are wrong.")
    changes: list[Document] = Field(description="Of a dry run, the first 500: {key, does, fields}.")
    reason: Document | None = Field(description="Why it failed, or is held; `code` is stable.")
    result: Document | None = Field(description="What the target made of it.")
    started_at: dt.datetime
    updated_at: dt.datetime
    finished_at: dt.datetime | None = None


class SyncRunQuery(PageQuery):
    """Which runs."""

    state: RunState | None = Field(None, description="Only those in this state.")


class SyncRuns(BaseModel):
    """A page of runs, the newest first."""

    runs: list[SyncRun]
    next_page_token: NextPageToken = None


class SyncConflict(BaseModel):
    """A row that both sides changed."""

    id: str
    sync: str
    key: str
    fields: dict[str, Document] = Field(description="field: {agreed, source, target}.")
    rule: Literal["theirs", "ours", "newest", "ask"]
    winner: Literal["source", "target"] | None
    state: Literal["open", "decided"]
    by: str | None = Field(description="`rule`, or the person who decided.")
    at: dt.datetime
    decided_at: dt.datetime | None


class SyncConflictQuery(PageQuery):
    """Which conflicts."""

    state: Literal["open", "decided"] | None = Field(None, description="Only those in this state.")


class SyncConflicts(BaseModel):
    """A page of conflicts, the newest first."""

    conflicts: list[SyncConflict]
    next_page_token: NextPageToken = None


class SyncConflictDecision(Strict):
    """Which side is right."""

    winner: Literal["source", "target"]


class CatalogueImport(BaseModel):
    """An import of the catalogue, and what came of it."""

    id: str
    sync: str | None = Field(description="The sync that it is of; null for `import_catalogue`.")
    state: Literal["published", "held", "rejected", "unchanged"]
    doubts: list[Document] = Field(description="Why it was held: {code, count, products, ...}.")
    base_version: int
    version: int | None = Field(description="The version that it made.")
    changes: Document = Field(description="What it changes, shortened; `counts` counts all.")
    wrong_rows: int
    at: dt.datetime
    by: str | None = Field(description="Who decided.")
    decided_at: dt.datetime | None


class CatalogueImportQuery(PageQuery):
    """Which imports."""

    state: Literal["published", "held", "rejected", "unchanged"] | None = Field(
        None, description="Only those in this state; `held` wait for a person."
    )


class CatalogueImports(BaseModel):
    """A page of imports, the newest first."""

    imports: list[CatalogueImport]
    next_page_token: NextPageToken = None


class CatalogueImportDecision(Strict):
    """Whether a held import goes live."""

    decision: Literal["approve", "reject"]


class CatalogueVersion(BaseModel):
    """A version of the catalogue."""

    version: int
    source: str = Field(description="What made it.")
    published_at: dt.datetime


class CatalogueVersions(BaseModel):
    """The newest versions, newest first."""

    current: int
    versions: list[CatalogueVersion]


class CatalogueRestored(BaseModel):
    """An old version in force again, as a new one."""

    version: int
    restored: int
    changes: dict[str, int]


VersionNumber = Annotated[int, Field(ge=1)]
_COUNTS = {
    "rows": 812,
    "inserted": 3,
    "updated": 40,
    "unchanged": 767,
    "kept": 0,
    "asked": 0,
    "wrong": 2,
    "refused": 0,
    "conflicts": 0,
    "deleted": 0,
}
_SYNC: Document = {
    "id": "prices",
    "source": "file",
    "target": "catalogue",
    "schedule": "0 6 * * mon-fri",
    "conflicts": "theirs",
    "deletes": False,
    "active": None,
    "last": {"run": RUN_ID, "state": "done", "at": "2026-11-27T09:00:09Z", "counts": _COUNTS},
}
_RUN: Document = {
    "id": RUN_ID,
    "sync": "prices",
    "state": "done",
    "dry_run": False,
    "full": False,
    "counts": _COUNTS,
    "wrong": [
        {
            "row": 17,
            "column": "Precio",
            "value": "consultar",
            "reason": "must be a number such as 1.234,50",
        }
    ],
    "changes": [],
    "reason": None,
    "result": {"state": "published", "version": 12},
    "started_at": "2026-11-27T09:00:01Z",
    "updated_at": "2026-11-27T09:00:09Z",
    "finished_at": "2026-11-27T09:00:09Z",
}
_CONFLICT: Document = {
    "id": CONFLICT_ID,
    "sync": "prices",
    "key": "isodec",
    "fields": {"base_price_per_m2": {"agreed": "150", "source": "160", "target": "155"}},
    "rule": "ask",
    "winner": None,
    "state": "open",
    "by": None,
    "at": "2026-11-27T09:00:05Z",
    "decided_at": None,
}
_IMPORT: Document = {
    "id": IMPORT_ID,
    "sync": "prices",
    "state": "held",
    "doubts": [
        {
            "code": "price_moved",
            "count": 1,
            "more_than_pct": 40.0,
            "products": [{"id": "isodec", "old": "150", "new": "1500"}],
        }
    ],
    "base_version": 12,
    "version": None,
    "changes": {
        "products_added": [],
        "products_removed": [],
        "fields": [{"field": "products.isodec.base_price_per_m2", "old": "150", "new": "1500"}],
        "counts": {"products_added": 0, "products_removed": 0, "fields": 1},
    },
    "wrong_rows": 0,
    "at": "2026-11-27T09:00:09Z",
    "by": None,
    "decided_at": None,
}
EXAMPLES: dict[str, Any] = {
    "Sync": _SYNC,
    "SyncList": {"syncs": [_SYNC]},
    "SyncStart": {"dry_run": True},
    "SyncRun": _RUN,
    "SyncRuns": {"runs": [_RUN], "next_page_token": "WyJmIiwiMDE5YWIiXQ"},
    "SyncConflict": _CONFLICT,
    "SyncConflicts": {"conflicts": [_CONFLICT], "next_page_token": "WyJmIiwiMDE5YWIiXQ"},
    "SyncConflictDecision": {"winner": "source"},
    "CatalogueImport": _IMPORT,
    "CatalogueImports": {"imports": [_IMPORT], "next_page_token": "WyJmIiwiMDE5YWIiXQ"},
    "CatalogueImportDecision": {"decision": "approve"},
    "CatalogueVersions": {
        "current": 12,
        "versions": [
            {"version": 12, "source": f"import:{RUN_ID}", "published_at": "2026-11-27T09:00:09Z"}
        ],
    },
    "CatalogueRestored": {
        "version": 13,
        "restored": 11,
        "changes": {"products_added": 0, "products_removed": 0, "fields": 40},
    },
}
