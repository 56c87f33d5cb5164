"""Clients of the front door: chat by session, tasks as the operator."""

import time

import httpx2

from torture.load import Answer, Job, described

# Longer than any answer is promised to take; past it the outcome is unknown.
TIMEOUT_S = 10.0
NOT_SURE = {409, 429, 503}
LATE_S = 1.0
# Kinds that only differ in what their client does with them.
TASK_TYPES = {"slow": "plain", "cancelled": "plain", "late": "plain"}


class Http:
    """One client with connections of its own."""

    def __init__(self, door: str, operator_token: str) -> None:
        self._operator = {"Authorization": f"Bearer {operator_token}"}
        self._http = httpx2.Client(base_url=door, timeout=TIMEOUT_S)

    def send(self, job: Job) -> Answer | None:
        """One try; None where the outcome is not known, or it was refused for now."""
        try:
            response = self._chat(job) if job.session else self._submit(job)
        except httpx2.TransportError:
            return None
        if response.status_code in NOT_SURE:
            return None
        at = time.monotonic()
        body = response.json()
        task = body.get("task_id") or body.get("id")
        reply = body.get("response") if response.status_code == 200 else None
        return Answer(at, response.status_code, task, reply)

    def _chat(self, job: Job) -> httpx2.Response:
        return self._http.post(
            "/api/chat",
            params={"wait": job.wait_s},
            headers={"Idempotency-Key": f'"{job.key}"'},
            json={
                "session_id": job.session,
                "message": f"{job.key} {job.kind} {job.pause_ms}",
            },
        )

    def _submit(self, job: Job) -> httpx2.Response:
        asked = {"type": TASK_TYPES.get(job.kind, job.kind), "payload": described(job)}
        if job.kind == "late":
            asked["deadline_s"] = LATE_S
        return self._http.post(
            "/api/tasks",
            headers=self._operator | {"Idempotency-Key": f'"{job.key}"'},
            json=asked,
        )

    def cancel(self, answer: Answer) -> None:
        """Ask once for its end, come what may."""
        try:
            self._http.post(f"/api/tasks/{answer.task}/cancel", headers=self._operator)
        except httpx2.TransportError:
            return  # then it is not cancelled

    def close(self) -> None:
        """Close connections."""
        self._http.close()
