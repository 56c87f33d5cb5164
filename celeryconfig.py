"""Celery's constants, each with its reason.

URLs, timeouts and key names come from the settings (`orchestrator.broker.configure`).
"""

broker_connection_retry_on_startup = True
# A worker waits for its broker as long as it takes; its supervisor need not count restarts.
broker_connection_max_retries = None

# The default exchange: it routes by the queue's name and keeps nothing in Redis.
task_default_exchange = ""

# Results, states and retries live in the task store; Celery only carries.
task_ignore_result = True
result_backend = None
task_store_errors_even_if_ignored = False

# JSON only on the wire: a message from elsewhere must not be able to run code.
task_serializer = "json"
accept_content = ["json"]

# A message is acknowledged when its task is stored, and one is taken per free slot, so that a
# busy worker leaves the rest to idle ones.
task_acks_late = True
worker_prefetch_multiplier = 1
# The store decides what runs again, and counts it.
task_reject_on_worker_lost = False
worker_cancel_long_running_tasks_on_connection_loss = False

# Not here: worker_pool. Celery 5.7 takes it even over `-P prefork` on the command line
# (celery/bin/worker.py, WorkersPool.convert); `orchestrator.worker.Worker` chooses threads.

# Flower shows tasks by these; the sent event would double the cost for no new fact.
worker_send_task_events = True
task_send_sent_event = False
# Sends them in bundles: a message for each took a third of a busy worker's time.
worker_consumer = "orchestrator.worker:Consumer"

# What libraries print is theirs; our own logging is set up by Celery's signal for it.
worker_redirect_stdouts = False

enable_utc = True
timezone = "UTC"

# Beat only counts intervals, and repeats are harmless: nothing to keep in a file.
beat_scheduler = "celery.beat:Scheduler"
