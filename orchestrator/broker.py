"""Publishing to agents' queues, and the transport that all of Celery here runs on.

Keeps secret how a message is made and how Redis is spoken to. A message carries a task's
id and fence, nothing of a customer. Messages go through the default exchange, which names
the queue itself: there are no bindings in Redis that a FLUSHALL could lose.
"""

import base64
import json
import threading
import time
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import redis
from celery import Celery
from kombu import Connection, Producer
from kombu.exceptions import BatchPublishError, OperationalError
from kombu.transport import TRANSPORT_ALIASES
from kombu.transport.redis import Channel as RedisChannel
from kombu.transport.redis import Transport as RedisTransport
from redis.backoff import NoBackoff
from redis.retry import Retry

from orchestrator.errors import BrokerUnavailable
from orchestrator.registry import SEPARATOR
from orchestrator.settings import Settings
from orchestrator.tasks import PRIORITY_STEPS, Task

# What a publish fails with; of a batch, some of it may have arrived.
FAILURES = (OperationalError, BatchPublishError, redis.RedisError, OSError)
# After a publish that failed, how long the next ones are left to the rescuer.
PAUSE_AFTER_FAILURE_S = 1.0


class Channel(RedisChannel):
    """kombu's channel, with one client per pool in place of one per command.

    Building a `redis.Redis` costs more than the command; the pool beneath is the same and
    is thread-safe (kombu 5.7, `transport/redis.py`, `_create_client`).
    """

    # What a worker holds is known by its leases; a copy in Redis would be two more round trips
    # per task, and would bring back, hours later, what the rescuer has long mended.
    ack_emulation = False
    # Nor are they put back when a channel closes: what was claimed is not in its queue any more,
    # the rescuer sees to what was not, and kombu would leave files behind where Redis is away.
    do_restore = False
    # kombu holds any `retry` for one that sends a pipeline twice, and would then send each message
    # of a batch by itself, without a word (kombu 5.7, `transport/redis.py`,
    # `_batch_publish_retry_safe`). Ours makes no second try.
    supports_batch_publish = True
    from_transport_options = RedisChannel.from_transport_options

    @cached_property
    def _shared_client(self) -> Any:
        return super()._create_client()

    def _create_client(self, asynchronous: bool = False) -> Any:
        if asynchronous:
            return super()._create_client(asynchronous=True)
        return self._shared_client

    def _connparams(self, asynchronous: bool = False) -> Any:
        """Without redis-py's own tries with pauses: who waits here has a deadline."""
        return super()._connparams(asynchronous) | {"retry": Retry(NoBackoff(), 0)}

    def _queue_bind(self, exchange: str, routing_key: str, pattern: str, queue: str) -> None:
        """Without writing down who listens to a broadcast: it goes by Redis' pub/sub.

        Nothing reads what kombu would write, and a killed worker's line would stay in it for
        as long as any other worker lives (kombu 5.7, `transport/redis.py`, `sweep_bindings`).
        """
        if self.typeof(exchange).type == "fanout":
            self._fanout_queues[queue] = (exchange, routing_key.replace("#", "*"))
            return
        super()._queue_bind(exchange, routing_key, pattern, queue)

    def _refresh_bindings(self, queues: list[str]) -> None:
        super()._refresh_bindings([queue for queue in queues if queue not in self._fanout_queues])

    def _disconnect_pools(self) -> None:
        self.__dict__.pop("_shared_client", None)
        super()._disconnect_pools()


class Transport(RedisTransport):
    """Redis through our channel; named in `celeryconfig.broker_transport`."""

    Channel = Channel


# By kombu's name for Redis, and not by Celery's `broker_transport`: Flower shows queues only
# of a broker whose URL says redis.
TRANSPORT_ALIASES.update(
    redis="orchestrator.broker:Transport", rediss="orchestrator.broker:Transport"
)


def configure(app: Celery, settings: Settings) -> None:
    """Give a Celery app its constants, and what the settings say of the broker."""
    app.config_from_object("celeryconfig")
    app.conf.update(
        broker_url=settings.redis_url,
        broker_transport_options={
            "priority_steps": sorted(PRIORITY_STEPS.values()),
            "sep": SEPARATOR,
            # Longer than a publisher waits: a worker loses its connection by it.
            "socket_timeout": max(5.0, settings.broker_timeout_s),
            "socket_connect_timeout": settings.broker_timeout_s,
            "socket_keepalive": True,
        },
    )


def published_at(message: str) -> float | None:
    """When a task's message was published, as it lies in a queue; None for any other message."""
    try:
        (_, fence, published, *_), *_ = json.loads(base64.b64decode(json.loads(message)["body"]))
        # What beat asks for has other arguments.
        return float(published) if isinstance(fence, int) else None
    except (ValueError, TypeError, LookupError):
        return None


class Publisher:
    """Publishes tasks by id. Thread-safe, one per process.

    Acceptance does not depend on it: what could not be published is published by the
    rescuer, so a Redis that is away costs one failed command a second, not one a request.
    """

    def __init__(self, settings: Settings) -> None:
        # Messages are made by task name; no agent's app is needed for that.
        self._app = Celery("publisher", set_as_current=False)
        configure(self._app, settings)
        self._timeout_s = settings.broker_timeout_s
        self._lock = threading.Lock()
        self._connection: Connection | None = None
        self._producer: Producer | None = None
        self._closed_until = 0.0

    def publish(self, tasks: Sequence[Task]) -> None:
        """Put messages into the tasks' queues, in order; several at once in one round trip.

        Raises:
            BrokerUnavailable: some may be there, some not; the rescuer sees to them.
        """
        with self._lock:
            if time.monotonic() < self._closed_until:
                raise BrokerUnavailable()
            try:
                self._send(tasks)
            except BrokerUnavailable:
                self._closed_until = time.monotonic() + PAUSE_AFTER_FAILURE_S
                raise

    def publish_bulk(self, tasks: Sequence[Task]) -> None:
        """The same, also while `publish` pauses after a failure.

        Raises:
            BrokerUnavailable: some may be there, some not.
        """
        with self._lock:
            self._send(tasks)

    def _send(self, tasks: Sequence[Task]) -> None:
        if not tasks:
            return
        try:
            producer = self._open()
            if len(tasks) == 1:
                self._send_one(producer, tasks[0])
                return
            # In pipelines of a thousand.
            with producer.batch():
                for task in tasks:
                    self._send_one(producer, task)
        except FAILURES as error:
            self._close()
            raise BrokerUnavailable() from error

    def _send_one(self, producer: Any, task: Task) -> None:
        message = self._app.amqp.create_task_message(
            # The fence tells one attempt from the next in Flower.
            f"{task.id}:{task.fence}",
            task.type,
            args=(
                task.id,
                task.fence,
                task.published_at.timestamp() if task.published_at else 0.0,
                task.suspect,
            ),
        )
        producer.publish(
            message.body,
            exchange="",
            routing_key=task.queue,
            priority=task.place.step,
            serializer="json",
            headers=message.headers,
            **message.properties,
        )

    def _open(self) -> Producer:
        if self._producer is None:
            self._connection = self._app.connection_for_write()
            self._connection.transport_options = {
                **(self._connection.transport_options or {}),
                "socket_timeout": self._timeout_s,
            }
            # kombu's own tries come with pauses of 2 s and more: who publishes has a deadline.
            self._connection.ensure_connection(
                max_retries=1,
                interval_start=0,
                interval_step=0,
                interval_max=0,
                timeout=self._timeout_s,
            )
            # A channel of our own: the default one would wait for Redis for ever.
            self._producer = Producer(self._connection.channel(), auto_declare=False)
        return self._producer

    def _close(self) -> None:
        self._producer = None
        if self._connection is not None:
            self._connection.release()
            self._connection = None
