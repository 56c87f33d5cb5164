"""Settings: typed, and refused at the start with a line that can be acted on."""

import pytest

from orchestrator.errors import BadSettings
from orchestrator.settings import Settings, load
from orchestrator.worker import wedged_after_s


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("PORT", "99999", "less than or equal to 65535"),
        ("LEASE_S", "soon", "valid number"),
        ("REDIS_URL", "http://x", "redis://"),
        ("MONGODB_URI", "x", "mongodb://"),
        ("ROUTING_STRATEGY", "best", "'balanced'"),
        ("IMPORT_DIR", "/does/not/exist", "folder"),
        ("MAX_FAILURES", "-1", "greater than or equal to 0"),
    ],
)
def test_a_bad_value_is_named_with_variable_value_and_range(monkeypatch, variable, value, says):
    monkeypatch.setenv(variable, value)
    with pytest.raises(BadSettings) as refused:
        load()
    assert f"{variable}='{value}'" in refused.value.detail
    assert says in refused.value.detail


@pytest.mark.parametrize(
    ("variable", "value"), [("OPERATOR_TOKEN", "short"), ("CLIENT_KEYS", "web:tooshort")]
)
def test_a_bad_secret_is_not_shown(monkeypatch, variable, value):
    monkeypatch.setenv(variable, value)
    with pytest.raises(BadSettings) as refused:
        load()
    assert variable in refused.value.detail
    assert value not in refused.value.detail


@pytest.mark.parametrize(
    ("variables", "says"),
    [
        ({"HEARTBEAT_S": "5"}, "LEASE_S must be at least twice HEARTBEAT_S"),
        ({"HEARTBEAT_S": "2", "WORKER_OFFLINE_S": "2"}, "WORKER_OFFLINE_S must be above"),
        ({"SOFT_LIMIT_S": "200"}, "HARD_LIMIT_S must not be below"),
    ],
)
def test_times_that_would_take_work_from_live_workers_are_refused(monkeypatch, variables, says):
    for variable, value in variables.items():
        monkeypatch.setenv(variable, value)
    with pytest.raises(BadSettings, match=says):
        load()


def test_what_is_off_by_default_is_off_where_it_is_set_to_nothing(monkeypatch):
    off = [name for name, field in Settings.model_fields.items() if field.default is None]
    assert {"import_dir", "workflows_dir", "operator_token", "n8n_webhook_url"} <= set(off)
    for name in off:
        monkeypatch.setenv(name.upper(), "")
    settings = load()
    assert {name: getattr(settings, name) for name in off} == dict.fromkeys(off)


def test_no_heartbeat_and_no_slow_store_ends_a_healthy_worker(monkeypatch):
    assert wedged_after_s(load()) == 60
    monkeypatch.setenv("HEARTBEAT_S", "60")
    monkeypatch.setenv("WORKER_OFFLINE_S", "200")
    monkeypatch.setenv("LEASE_S", "240")
    assert wedged_after_s(load()) > 2 * 60
    monkeypatch.setenv("STORE_TIMEOUT_S", "30")
    # The driver's own limit for one answer is four times that.
    assert wedged_after_s(load()) > 60 + 2 * 4 * 30


def test_every_setting_says_what_it_is_for():
    for name, field in Settings.model_fields.items():
        assert field.description, name


def test_client_keys_are_pairs_of_name_and_key(monkeypatch):
    monkeypatch.setenv("CLIENT_KEYS", "web:0123456789abcdef, n8n:fedcba9876543210")
    assert load().clients == {"0123456789abcdef": "web", "fedcba9876543210": "n8n"}


def test_the_page_speaks_as_a_client_that_has_a_key(monkeypatch):
    monkeypatch.setenv("CLIENT_KEYS", "web:0123456789abcdef")
    monkeypatch.setenv("PAGE_CLIENT", "wed")
    with pytest.raises(BadSettings, match="PAGE_CLIENT must be the name of a client"):
        load()
    monkeypatch.setenv("PAGE_CLIENT", "web")
    assert load().page_key == "0123456789abcdef"


def test_secrets_do_not_show_when_settings_are_printed(monkeypatch):
    monkeypatch.setenv("OPERATOR_TOKEN", "0123456789abcdef-token")
    assert "0123456789abcdef" not in repr(load())
