"""Every setting, once: its type, default, unit, range and reason.

Values come from the environment under the field's name in capitals (`REDIS_URL`). They are
read by `load()` at the start of a process and passed on; nothing else reads the environment.
"""

import base64
import datetime as dt
import ipaddress
import json
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Annotated, Literal, Self, get_args
from zoneinfo import ZoneInfo, available_timezones

from cronsim import CronSim, CronSimError
from holidays import list_supported_countries
from pydantic import (
    Field,
    SecretStr,
    ValidationError,
    ValidationInfo,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, SettingsConfigDict

from orchestrator.errors import BadSettings, said_of
from orchestrator.working_time import WorkingTime, parse_hours

OnBusy = Literal["coalesce", "enqueue", "reject"]
StrategyName = Literal["round_robin", "least_busy", "capability_match", "balanced"]


class Settings(BaseSettings):
    """Typed settings. Unknown variables of the environment are left alone."""

    model_config = SettingsConfigDict(frozen=True, extra="ignore", case_sensitive=False)

    redis_url: str = Field(
        "redis://127.0.0.1:6379/0",
        description="Redis or Valkey: Celery's queues, heartbeats, notifications. Never the truth.",
    )
    mongodb_uri: str = Field(
        "mongodb://127.0.0.1:27017",
        description="MongoDB: tasks, sessions, declarations. The truth.",
    )
    mongodb_database: str = Field(
        "agent_orchestrator",
        pattern=r"^[A-Za-z0-9_-]{1,60}$",
        description="Database name; another name is another, separate front desk.",
    )
    key_prefix: str = Field(
        "orchestrator",
        pattern=r"^[A-Za-z0-9_-]{1,60}$",
        description="Prefix of all Redis keys and of Celery's queues, so that desks can share one.",
    )
    agents_package: str = Field(
        "agents",
        pattern=r"^[A-Za-z_][A-Za-z0-9_.]*$",
        description="Importable package whose folders are the agents.",
    )

    host: str = Field("127.0.0.1", description="Where the front door binds; loopback by default.")
    port: int = Field(8000, ge=1, le=65535, description="Front door's port.")
    operator_token: SecretStr | None = Field(
        None,
        min_length=16,
        description="Bearer token for whatever changes state beyond chat or shows customers' data.",
    )
    client_keys: SecretStr | None = Field(
        None,
        description="Chat clients' keys, 'name:key' separated by commas. Without any, chat is open "
        "on loopback only.",
    )
    page_client: str | None = Field(
        None,
        pattern=r"^[\w.-]{1,60}$",
        description="Name of the client in CLIENT_KEYS as which the chat page at / speaks. Its key "
        "stands in the page: whoever opens it has it.",
    )
    cors_origins: str = Field(
        "",
        description="Origins, separated by commas, whose pages may call the front door.",
    )

    store_timeout_s: float = Field(
        1.4,
        gt=0,
        le=30,
        description="Longest wait for MongoDB before 503; the front door answers within 2 s, and "
        "the driver looks at its deadline every half second.",
    )
    broker_timeout_s: float = Field(
        1.0, gt=0, le=30, description="Longest wait for one Redis command."
    )
    chat_wait_s: float = Field(
        20.0, ge=0, le=30, description="How long a chat request waits for its reply before 202."
    )
    max_waits: int = Field(
        500,
        ge=1,
        le=10_000,
        description="Requests of one front door that wait for their task at once; each holds a "
        "thread. Past it they are answered at once as still under way (202).",
    )
    max_streams: int = Field(
        500,
        ge=1,
        le=10_000,
        description="Event streams that one front door keeps open at once; each holds a thread. "
        "Past it they are refused (503).",
    )
    request_timeout_s: float = Field(
        30.0,
        gt=0,
        le=600,
        description="How long a client may take to send a request, head and body: each holds a "
        "thread until it is here. 64 kB come through a line of 30 kbit/s in 18 s.",
    )
    stream_heartbeat_s: float = Field(
        15.0,
        gt=0,
        le=300,
        description="Between two signs of life of a quiet event stream; less than the minute after "
        "which proxies give up. A client that is gone keeps its place no longer.",
    )
    on_busy: OnBusy = Field(
        "coalesce",
        description="A customer's messages that come while another one is answered: understood "
        "together and answered once, answered one by one, or refused with 409.",
    )
    quiet_ms: float = Field(
        200.0,
        ge=0,
        le=5000,
        description="A message waits so long for more of the same customer before it is answered, "
        "where the client waits for the reply: hardly noticed, and what is sent together is "
        "answered together. No worker is held meanwhile. 0 answers at once.",
    )
    quiet_unwatched_ms: float = Field(
        1000.0,
        ge=0,
        le=10_000,
        description="The same on channels where nobody waits on a connection, such as WhatsApp: "
        "there people send one thought in several messages.",
    )
    idempotency_hours: float = Field(
        24.0,
        gt=0,
        le=24 * 30,
        description="How long an Idempotency-Key of the HTTP API is remembered, whatever becomes "
        "of its task.",
    )
    context_history_days: float = Field(
        7.0,
        ge=0,
        le=3650,
        description="Older versions of a session's context are kept this long; 0 keeps none.",
    )
    max_waiting_per_key: int = Field(
        100,
        ge=1,
        le=10_000,
        description="Unfinished tasks that one ordering key (a session) may have.",
    )
    max_expected_wait_s: float = Field(
        300.0,
        gt=0,
        le=86_400,
        description="Requests of normal and low priority that would wait longer than this for a "
        "slot are refused, with Retry-After: a customer does not wait five minutes for a reply, "
        "and who sends in bulk can send later.",
    )
    max_unfinished: int = Field(
        250_000,
        ge=1,
        le=100_000_000,
        description="Unfinished tasks past which nothing comes in, whatever its priority: a store "
        "that is full loses what it promised. About 2 kB each.",
    )

    heartbeat_s: float = Field(
        2.0, gt=0, le=60, description="Between two heartbeats and lease renewals of a worker."
    )
    lease_s: float = Field(
        8.0,
        gt=0,
        le=600,
        description="A running task whose lease was not renewed for this long is taken back; four "
        "heartbeats, so that one slow write costs nothing. Two at least.",
    )
    worker_offline_s: float = Field(
        7.0, gt=0, le=600, description="Silence after which a worker is offline: three heartbeats."
    )
    rescue_interval_s: float = Field(
        1.0, gt=0, le=60, description="Between two passes of the rescuer."
    )
    republish_after_s: float = Field(
        3.0,
        gt=0,
        le=600,
        description="A queued task whose message its queue has moved past is published again after "
        "this; the pause doubles each time. Also the first look at what is blocked or waits.",
    )
    republish_max_s: float = Field(
        300.0, gt=0, le=86_400, description="Longest pause before it is published once more."
    )
    max_failures: int = Field(
        3, ge=0, le=100, description="Retries after errors that a handler raised."
    )
    max_crashes: int = Field(
        5, ge=0, le=100, description="Workers lost while running a task before it is given up."
    )
    retry_base_s: float = Field(1.0, gt=0, le=3600, description="Pause before the first retry.")
    retry_max_s: float = Field(60.0, gt=0, le=86_400, description="Longest pause before a retry.")
    delivery_patience_s: float = Field(
        86_400.0,
        gt=0,
        le=30 * 86_400,
        description="How long an outgoing entry that was not taken is tried again before it fails; "
        "a day, as long as WhatsApp allows an answer.",
    )
    soft_limit_s: float = Field(
        120.0,
        gt=0,
        le=86_400,
        description="A handler that runs longer is told to stop, and its worker shows an error; "
        "for task types that declare no limit of their own. No customer waits longer.",
    )
    hard_limit_s: float = Field(
        180.0,
        gt=0,
        le=86_400,
        description="A handler that runs longer is given up with its process: a thread cannot be "
        "ended alone. A minute past the soft limit, for handlers that ask whether to stop.",
    )
    shutdown_grace_s: float = Field(
        8.0,
        ge=0,
        le=3600,
        description="What a worker that was asked to stop may take to finish what it holds; then "
        "it hands it back. Below the 10 s after which most supervisors kill.",
    )
    max_depth: int = Field(5, ge=1, le=50, description="How deep hand-overs may nest.")
    task_retention_days: float = Field(
        30.0,
        gt=0,
        le=3650,
        description="Final tasks are kept this long; longer than any window in which their "
        "idempotency key matters.",
    )

    dead_letter_retention_days: float = Field(
        90.0,
        gt=0,
        le=3650,
        description="Dead letters are kept this long after they failed: somebody has to look at "
        "them first, and may be on holiday.",
    )
    session_retention_days: float = Field(
        365.0,
        gt=0,
        le=3650,
        description="Sessions that nobody has touched for this long go, with their messages: a "
        "customer who comes back within a year is still known.",
    )
    audit_retention_days: float = Field(
        365.0,
        gt=0,
        le=3650,
        description="Who replayed, discarded, exported or erased what is kept this long.",
    )
    analytics_retention_days: float = Field(
        1100.0,
        ge=100,
        le=36500,
        description="Reports and the numbers that they are made of, which say nothing of anybody, "
        "are kept this long: a year can be held against the two before it.",
    )

    routing_strategy: StrategyName = Field(
        "balanced", description="How the router chooses among agents that can do a task."
    )
    load_view_ms: float = Field(
        50.0,
        ge=0,
        le=5000,
        description="How long a snapshot of the load is used; routed tasks are added meanwhile.",
    )
    declarations_refresh_s: float = Field(
        2.0, ge=0, le=300, description="How long the front door uses the declarations it has read."
    )

    http_allowed_hosts: str = Field(
        "graph.facebook.com",
        max_length=10_000,
        description="Servers of others that may be asked, separated by commas: names, "
        "'*.example.com', addresses, networks. A name that stands for a private address needs "
        "that address (or its network) in the list, too; so does http without TLS.",
    )
    http_timeout_s: float = Field(
        10.0, gt=0, le=120, description="Longest wait for the answer of such a server."
    )
    http_ca_file: Path | None = Field(
        None,
        description="PEM file of certificate authorities that are trusted besides the system's: "
        "for servers of one's own, such as an n8n inside the house.",
    )

    whatsapp_app_secret: SecretStr | None = Field(
        None,
        description="WhatsApp Cloud API: the app's secret, which signs what Meta sends. With the "
        "verify token it turns incoming messages on.",
    )
    whatsapp_verify_token: SecretStr | None = Field(
        None, description="What Meta shows when the webhook is set up; of your choice."
    )
    whatsapp_access_token: SecretStr | None = Field(
        None,
        description="The access token that messages are sent with. With the phone number's id it "
        "turns outgoing messages on.",
    )
    whatsapp_phone_number_id: str | None = Field(
        None,
        pattern=r"^[0-9]{1,32}$",
        description="Id of the business's number; messages to others are left alone.",
    )
    whatsapp_api_url: str = Field(
        "https://graph.facebook.com/v23.0",
        pattern=r"^https?://\S{1,200}$",
        description="The Graph API with its version.",
    )
    whatsapp_templates: str = Field(
        "",
        description="Approved templates for messages to customers that were silent for 24 hours, "
        "'kind=name' separated by commas; kinds: reply, quote_sent, quote_expiring, "
        "quote_accepted, conversation_idle, custom. Without one such a message fails with the "
        "reason outside_window, and a follow-up is not sent.",
    )
    whatsapp_template_languages: str = Field(
        "es=es,en=en",
        description="Language codes of the templates, such as 'es=es_UY,en=en_US'.",
    )

    n8n_webhook_url: SecretStr | None = Field(
        None,
        description="Where n8n (or another) is told each message that leaves. Its host must be in "
        "HTTP_ALLOWED_HOSTS.",
    )
    n8n_webhook_secret: SecretStr | None = Field(
        None,
        description="'whsec_' and base64: signs what is told there, as Standard Webhooks has it.",
    )

    openai_base_url: str | None = Field(
        None,
        pattern=r"^https?://\S{1,500}$",
        description="OpenAI-compatible endpoint of a language model, such as "
        "http://127.0.0.1:11434/v1. It or OPENAI_API_KEY turns the model on: customers' messages "
        "that the built-in understanding makes nothing of, and our replies, then go there.",
    )
    openai_api_key: SecretStr | None = Field(
        None, min_length=1, description="Key for the language model's endpoint."
    )
    openai_model: str = Field(
        "gpt-5-mini", pattern=r"^\S{1,200}$", description="Which model answers there."
    )
    llm_timeout_s: float = Field(
        4.0,
        gt=0,
        le=30,
        description="Longest wait for the language model; then the built-in answers, so that a "
        "customer waits no more than twice this (understanding and wording).",
    )
    llm_daily_tokens: int = Field(
        500_000,
        ge=0,
        description="Tokens that the language model may use in a UTC day, over all workers; then "
        "the built-in answers. Checked before each question, so the last one may go over.",
    )
    llm_wording: bool = Field(
        True,
        description="Whether the language model also words replies; off saves a question for "
        "every reply. Quotes are never worded by it.",
    )

    business_zone: str = Field(
        "America/Montevideo",
        description="Time zone of the business: of its hours, of times of day in workflows, and "
        "of schedules in cron form.",
    )
    report_daily_cron: str | None = Field(
        "30 6 * * *",
        max_length=100,
        description="When the report of the day before is made, in cron form on the business's "
        "clock: before people come to work. Empty: never.",
    )
    report_weekly_cron: str | None = Field(
        "40 6 * * 1",
        max_length=100,
        description="When the report of the week before is made, in cron form. Empty: never.",
    )
    business_hours: str = Field(
        "mon-fri 09:00-18:00, sat 09:00-13:00",
        max_length=500,
        description="When the business is open; nothing is sent by itself at other times. "
        '"mon-sun 00:00-24:00" is always.',
    )
    business_country: str | None = Field(
        "UY",
        description="ISO 3166 code of the country whose public holidays the business keeps; empty "
        "for none.",
    )

    run_look_s: float = Field(
        30.0,
        ge=1,
        le=3600,
        description="A workflow run that waits for a task is looked at this often, for the case "
        "that whoever was to tell it died; each look is a write.",
    )
    workflows_dir: Path | None = Field(
        None,
        description="Folder with workflow definitions (*.yaml) of your own, kept by each worker's "
        "start and by `orchestrator init`; the same on every machine, or set on one.",
    )

    import_dir: Path | None = Field(
        None,
        description="Folder that import tasks may read files from; without it, only content that "
        "comes with the task.",
    )

    syncs_file: Path | None = Field(
        None,
        description="YAML file that names the business's syncs, and where quotes are copied to "
        "(docs/data-sync.md); without it there are none.",
    )
    sync_secrets: SecretStr | None = Field(
        None,
        description="Tokens and keys that SYNCS_FILE names, as a JSON object: "
        '{"shop": "shpat_...", "office": {"type": "service_account", ...}}.',
    )
    catalogue_max_price_change_pct: float = Field(
        40.0,
        gt=0,
        le=1000,
        description="An import that changes a product's price by more waits for a person: prices "
        "do not move that much in a week, a comma in the wrong place does.",
    )
    catalogue_max_gone_pct: float = Field(
        20.0,
        ge=0,
        le=100,
        description="An import that takes away more of the catalogue's products waits for a "
        "person: it is more likely half a file.",
    )

    business_file: Path | None = Field(
        None,
        description="YAML file with the name, address and logo that the business's documents show; "
        "without it, the sample business that ships.",
    )

    followups_file: Path | None = Field(
        None,
        description="YAML file with the rules by which customers are written to; without it, "
        "those that ship.",
    )

    worker_metrics_host: str = Field(
        "127.0.0.1", description="Where workers serve their metrics; loopback by default."
    )
    worker_metrics_port: Annotated[int, Field(ge=0, le=65535)] | Literal["off"] = Field(
        0,
        description="Port of a worker's /metrics. 0 is any that is free: the front door lists them "
        "for Prometheus at /api/orchestrator/metrics/targets. 'off' serves none.",
    )

    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least severe event that is logged."
    )
    log_key: SecretStr | None = Field(
        None,
        description="Keys the hash that stands for a session in the logs. Without one each process "
        "makes its own, and lines of one session can be joined within a process only.",
    )

    @model_validator(mode="after")
    def _limits_in_order(self) -> Self:
        if self.hard_limit_s < self.soft_limit_s:
            raise ValueError("HARD_LIMIT_S must not be below SOFT_LIMIT_S")
        if self.lease_s < 2 * self.heartbeat_s:
            # What is alive would be taken back, and counted as crashed.
            raise ValueError("LEASE_S must be at least twice HEARTBEAT_S")
        if self.worker_offline_s <= self.heartbeat_s:
            raise ValueError("WORKER_OFFLINE_S must be above HEARTBEAT_S")
        return self

    @model_validator(mode="after")
    def _page_has_a_key(self) -> Self:
        if self.page_client is not None and self.clients and self.page_key is None:
            raise ValueError("PAGE_CLIENT must be the name of a client in CLIENT_KEYS")
        return self

    @field_validator("sync_secrets")
    @classmethod
    def _an_object(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            try:
                secrets = json.loads(value.get_secret_value())
            except ValueError:
                secrets = None
            if not isinstance(secrets, dict):
                raise ValueError('must be a JSON object, such as {"shop": "shpat_..."}')
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis_scheme(cls, value: str) -> str:
        if not value.startswith(("redis://", "rediss://")):
            raise ValueError("must begin with redis:// or rediss://")
        return value

    @field_validator("mongodb_uri")
    @classmethod
    def _mongodb_scheme(cls, value: str) -> str:
        if not value.startswith(("mongodb://", "mongodb+srv://")):
            raise ValueError("must begin with mongodb:// or mongodb+srv://")
        return value

    @field_validator("*", mode="before")
    @classmethod
    def _none_is_empty(cls, value: object, info: ValidationInfo) -> object:
        """What is off by default is off where it is set to nothing, as in a compose file: an empty
        path would be the folder that the process happens to be in."""
        off = info.field_name and cls.model_fields[info.field_name].default is None
        return None if off and value == "" else value

    @field_validator("import_dir", "workflows_dir")
    @classmethod
    def _a_folder(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_dir():
            raise ValueError("must be a folder that exists")
        return value

    @field_validator("business_file", "followups_file", "http_ca_file")
    @classmethod
    def _a_file(cls, value: Path | None) -> Path | None:
        if value is not None and not value.is_file():
            raise ValueError("must be a file that exists")
        return value

    @field_validator("client_keys")
    @classmethod
    def _named_keys(cls, value: SecretStr | None) -> SecretStr | None:
        for pair in (value.get_secret_value() if value else "").split(","):
            name, _, key = pair.strip().partition(":")
            if pair.strip() and (not name or len(key) < 16):
                raise ValueError("must be 'name:key' pairs with keys of 16 characters or more")
        return value

    @field_validator("whatsapp_templates", "whatsapp_template_languages")
    @classmethod
    def _pairs(cls, value: str) -> str:
        for pair in value.split(","):
            name, _, told = pair.strip().partition("=")
            if pair.strip() and not (name.strip() and told.strip()):
                raise ValueError("must be 'name=value' pairs, separated by commas")
        return value

    @field_validator("n8n_webhook_secret")
    @classmethod
    def _webhook_secret(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            encoded = value.get_secret_value().removeprefix("whsec_")
            try:
                key = base64.b64decode(encoded + "=" * (-len(encoded) % 4), validate=True)
            except ValueError:
                key = b""
            if not 24 <= len(key) <= 64:
                raise ValueError("must be 'whsec_' and 24 to 64 bytes in base64")
        return value

    @property
    def whatsapp_receives(self) -> bool:
        """Whether messages from WhatsApp are accepted."""
        return None not in (self.whatsapp_app_secret, self.whatsapp_verify_token)

    @property
    def whatsapp_sends(self) -> bool:
        """Whether messages to WhatsApp can be sent."""
        return None not in (self.whatsapp_access_token, self.whatsapp_phone_number_id)

    @property
    def n8n_told(self) -> bool:
        """Whether there is somebody to tell what leaves."""
        return None not in (self.n8n_webhook_url, self.n8n_webhook_secret)

    @field_validator("business_zone")
    @classmethod
    def _known_zone(cls, value: str) -> str:
        if value not in available_timezones():
            raise ValueError("must be a time zone such as America/Montevideo")
        return value

    @field_validator("report_daily_cron", "report_weekly_cron")
    @classmethod
    def _readable_cron(cls, value: str | None) -> str | None:
        if not value:
            return None
        try:
            CronSim(value, dt.datetime.now(dt.UTC))
        except CronSimError as error:
            raise ValueError(f"must be a cron expression such as '30 6 * * *': {error}") from None
        return value

    @field_validator("business_hours")
    @classmethod
    def _readable_hours(cls, value: str) -> str:
        parse_hours(value)
        return value

    @field_validator("business_country")
    @classmethod
    def _known_country(cls, value: str | None) -> str | None:
        if value and value.upper() not in list_supported_countries():
            raise ValueError("must be a country's code such as UY, or empty")
        return value.upper() if value else None

    @cached_property
    def working_time(self) -> WorkingTime:
        """When the business is open."""
        return WorkingTime(
            ZoneInfo(self.business_zone), parse_hours(self.business_hours), self.business_country
        )

    @property
    def llm_configured(self) -> bool:
        """Whether there is a language model to ask."""
        return self.openai_base_url is not None or self.openai_api_key is not None

    @property
    def clients(self) -> dict[str, str]:
        """Key -> client name."""
        pairs = (self.client_keys.get_secret_value() if self.client_keys else "").split(",")
        split = (pair.strip().partition(":") for pair in pairs if pair.strip())
        return {key: name for name, _, key in split}

    @property
    def page_key(self) -> str | None:
        """The key that the chat page sends; None where it needs none, or has none."""
        keys = (key for key, name in self.clients.items() if name == self.page_client)
        return next(keys, None)

    @property
    def origins(self) -> list[str]:
        """CORS origins as a list."""
        return [origin.strip() for origin in self.cors_origins.split(",") if origin.strip()]

    def queue(self, role: str) -> str:
        """The Celery queue of a role; the default prefix is left out of it."""
        return role if self.key_prefix == "orchestrator" else f"{self.key_prefix}.{role}"


def pairs(setting: str) -> dict[str, str]:
    """'a=b,c=d' as a dictionary."""
    split = (pair.partition("=") for pair in setting.split(",") if pair.strip())
    return {name.strip(): told.strip() for name, _, told in split}


def is_loopback(host: str) -> bool:
    """Whether only processes of this machine can reach `host`. A name is not looked up."""
    if host.lower() == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False


def load() -> Settings:
    """Read the environment.

    Raises:
        BadSettings: its detail names variable, value and what is possible, a line each.
    """
    try:
        return Settings()
    except ValidationError as error:
        secret = {
            name
            for name, field in Settings.model_fields.items()
            if SecretStr in get_args(field.annotation)
        }
        lines = []
        for problem in error.errors():
            if not problem["loc"]:
                lines.append(said_of(problem))
                continue
            variable = str(problem["loc"][0])
            # A URL may hold a password.
            hidden = variable in secret or "@" in str(problem["input"])
            shown = "(hidden)" if hidden else repr(problem["input"])
            lines.append(f"{variable.upper()}={shown}: {said_of(problem)}")
        raise BadSettings("; ".join(lines)) from None


@lru_cache(maxsize=1)
def current() -> Settings:
    """The settings of this process, read at the first call."""
    return load()
