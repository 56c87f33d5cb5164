"""Settings: typed, and refused at the start with a line that can be acted on."""

import pytest

from orchestrator.errors import BadSettings
from orchestrator.settings import Settings, load


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


def test_every_setting_says_what_it_is_for():
    for name, field in Settings.model_fields.items():
        assert field.description, name


def test_client_keys_are_pairs_of_name_and_key(monkeypatch):
    monkeypatch.setenv("CLIENT_KEYS", "web:0123456789abcdef, n8n:fedcba9876543210")
    assert load().clients == {"0123456789abcdef": "web", "fedcba9876543210": "n8n"}


def test_secrets_do_not_show_when_settings_are_printed(monkeypatch):
    monkeypatch.setenv("OPERATOR_TOKEN", "0123456789abcdef-token")
    assert "0123456789abcdef" not in repr(load())
