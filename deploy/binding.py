"""Who may be let in from other machines: nobody, until there are credentials."""

from orchestrator.settings import is_loopback


def bracketed(host: str) -> str:
    """`host` as it is written before a port: an IPv6 address in brackets."""
    return f"[{host}]" if ":" in host and not host.startswith("[") else host


def refusal(host: str, *, operator_token: bool, client_keys: bool) -> str | None:
    """Why the front door must not bind to `host`, in one line; None if it may."""
    missing = [
        name
        for name, given in (("OPERATOR_TOKEN", operator_token), ("CLIENT_KEYS", client_keys))
        if not given
    ]
    if is_loopback(host) or not missing:
        return None
    return (
        f"HOST={host} can be reached from other machines: set {' and '.join(missing)} first, "
        "or keep HOST=127.0.0.1"
    )
