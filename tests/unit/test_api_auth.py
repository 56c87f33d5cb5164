"""Nobody gets in who should not, and this machine is only trusted when it really asks."""

import pytest
from flask import Flask, request

from api.auth import Access, is_local
from api.errors import Forbidden, Unauthenticated
from orchestrator.settings import Settings

TOKEN = "operator-token-0123456789"
KEY = "key-of-the-web-0123456789"
FLASK = Flask("test")


def access(*, token: str | None = TOKEN, keys: str | None = None) -> Access:
    return Access(Settings(operator_token=token, client_keys=keys))


def asking(peer: str = "127.0.0.1", host: str = "localhost:8000", **headers: str):
    return FLASK.test_request_context(
        headers={"Host": host} | {name.replace("_", "-"): value for name, value in headers.items()},
        environ_base={"REMOTE_ADDR": peer},
    )


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def test_without_keys_chat_is_open_to_this_machine():
    with asking():
        assert access().chatting(request).name == "local"


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1:8000", "[::1]:8000", "LOCALHOST:1"])
def test_this_machine_has_several_names(host):
    with asking(host=host):
        assert is_local(request)


@pytest.mark.parametrize(
    "request_of",
    [
        asking(peer="192.168.1.7"),
        asking(peer="", host="localhost"),
        asking(host="evil.example"),  # DNS rebinding
        asking(host="evil.example:8000"),
        asking(host="localhost.evil.example"),
        asking(host="127.0.0.1.evil.example"),
        asking(host=""),
        asking(X_Forwarded_For="203.0.113.9"),
        asking(X_Forwarded_For=""),
        asking(Forwarded="for=203.0.113.9"),
        asking(X_Real_IP="203.0.113.9"),
    ],
)
def test_who_is_not_this_machine_needs_credentials(request_of):
    with request_of:
        assert not is_local(request)
        for admit in (access().chatting, access().operating, access().looking):
            with pytest.raises(Unauthenticated):
                admit(request)


def test_with_keys_this_machine_needs_one_too():
    with asking(), pytest.raises(Unauthenticated):
        access(keys=f"web:{KEY}").chatting(request)


@pytest.mark.parametrize(
    "headers", [bearer(KEY), {"X_API_Key": KEY}, {"Authorization": f"bearer {KEY}"}]
)
def test_a_client_is_known_by_its_key_from_anywhere(headers):
    with asking(peer="203.0.113.9", host="chat.example", **headers):
        assert access(keys=f"web:{KEY},n8n:{'n' * 20}").chatting(request).name == "client:web"


def test_the_operator_may_do_everything():
    with asking(peer="203.0.113.9", **bearer(TOKEN)):
        assert access().operating(request).operator
        assert access().chatting(request).may_see("client:web")
        access().looking(request)


def test_a_client_is_no_operator():
    with asking(**bearer(KEY)):
        for admit in (access(keys=f"web:{KEY}").operating, access(keys=f"web:{KEY}").looking):
            with pytest.raises(Forbidden):
                admit(request)


@pytest.mark.parametrize(
    "headers",
    [
        bearer("wrong"),
        bearer(""),
        bearer(TOKEN[:-1]),
        bearer(TOKEN.upper()),
        bearer("ñandú"),
        {"X_API_Key": "wrong"},
        {"X_API_Key": ""},
        {"Authorization": "Basic b3BlcmF0b3I6eA=="},
        {"Authorization": TOKEN},
    ],
)
def test_wrong_credentials_are_refused_even_where_none_are_needed(headers):
    with asking(**headers):
        for admit in (access().chatting, access().operating, access().looking):
            with pytest.raises(Unauthenticated):
                admit(request)


def test_without_a_token_nobody_is_operator():
    with asking(**bearer("None")), pytest.raises(Unauthenticated):
        access(token=None).operating(request)
    with asking(), pytest.raises(Unauthenticated) as refused:
        access(token=None).operating(request)
    assert "OPERATOR_TOKEN" in refused.value.detail


def test_onlookers_of_this_machine_need_nothing():
    with asking():
        access(keys=f"web:{KEY}").looking(request)


def test_callers_see_what_is_theirs():
    with asking():
        local = access().chatting(request)
    assert local.may_see("local")
    assert not local.may_see("client:web")
    assert not local.may_see("operator")


def test_a_key_may_hold_any_letters():
    key = "ñandú-0123456789-ñandú"
    wire = key.encode().decode("latin-1")  # as WSGI hands it over
    with FLASK.test_request_context(
        environ_overrides={"HTTP_X_API_KEY": wire, "HTTP_HOST": "x", "REMOTE_ADDR": "203.0.113.9"}
    ):
        assert access(keys=f"web:{key}").chatting(request).name == "client:web"
