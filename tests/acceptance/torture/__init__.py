"""Accepted means done, tried: real processes under load, a schedule of faults, and an oracle.

    make torture MINUTES=30 SEED=7

| file | keeps secret |
| --- | --- |
| `schedule` | which fault comes when: a function of the seed |
| `load` | which jobs are sent, in which sessions: a function of the seed; and how |
| `oracle` | what the outside world saw: runs that began, effects that took place |
| `witness` | how a handler tells the oracle |
| `stage` | how servers, processes, network and clock are broken and mended |
| `supervisor`, `proxy` | processes that are started again; a network that can be cut |
| `desk`, `http_way` | our system on the stage, and the clients of its front door |
| `verdict` | what follows from what was sent, seen and stored; pure |
| `agents`, `door`, `clockwork` | what runs in the processes under test |
| `soak` | whether memory stays flat |
| `bare` | the other side: Celery alone, with everything recommended |
"""
