"""A spawn request sets only the environment variables that the profile allows, and never one that changes what runs."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from sidecar.actors import messages as m
from sidecar.http import config
from sidecar.state.errors import ConfigError, InvalidRequest
from sidecar.state.models import AgentState
from sidecar.supervision.request_environment import (
    MAX_NAME_CHARS,
    MAX_VARIABLES,
    changes_code,
    check_environment,
    is_pattern,
    matches,
)
from tests.fleet import Fleet, does

CHANGES_CODE = (
    *("PATH", "LD_PRELOAD", "DYLD_INSERT_LIBRARIES", "GCONV_PATH", "HOME", "XDG_CONFIG_HOME", "LESSOPEN", "BASH_ENV"),
    *("PYTHONPATH", "PYTHONUSERBASE", "PYTHONWARNINGS", "PYTHONHOME", "PYTHONSTARTUP", "BROWSER", "ENV", "SHELLOPTS"),
    *(
        "PERL5OPT",
        "PERL5LIB",
        "PERL5DB",
        "RUBYOPT",
        "RUBYLIB",
        "JAVA_TOOL_OPTIONS",
        "_JAVA_OPTIONS",
        "JDK_JAVA_OPTIONS",
    ),
    *("NODE_OPTIONS", "NODE_PATH", "DOTNET_STARTUP_HOOKS", "GIT_SSH_COMMAND", "GIT_CONFIG_COUNT", "GIT_DIR", "PAGER"),
    *("SSH_ASKPASS", "RUSTC_WRAPPER", "CARGO_HOME", "MAKEFLAGS", "npm_config_script_shell", "LUA_INIT", "CLASSPATH"),
    *("Http_Proxy", "all_proxy", "PYTEST_ADDOPTS", "FZF_DEFAULT_COMMAND", "RIPGREP_CONFIG_PATH", "ASAN_OPTIONS", "TMP"),
    *("HTTPS_PROXY", "SIDECAR_CONFIG", "CLAUDE_CONFIG_DIR", "TAR_OPTIONS", "RSYNC_RSH", "GLIBC_TUNABLES", "ZDOTDIR"),
)
SET_BY_SIDECAR = ("JWT_TOKEN", "AGENT_ID", "PROJECT_ROOT", "SIDECAR_INSTANCE", "SIDECAR_URL", "TRACEPARENT")
NO_NAMES = ("", "A=B", "A\0B", "BASH_FUNC_ls%%", "BASH_FUNC_ls()", "1A", "A B", "$A", "Ä")


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    with Fleet(
        tmp_path,
        plain=does("env"),
        named=does("env", request_env=("SUITE", "RUN_*_ID")),
        all=does("env", request_env=("*",)),
    ) as fleet:
        yield fleet


@pytest.mark.parametrize("allowed", [("TASK_*", "APP_*"), ("*",)])
@pytest.mark.parametrize("name", [*CHANGES_CODE, *SET_BY_SIDECAR, *NO_NAMES])
def test_what_changes_the_code_that_runs_is_refused_whatever_the_profile_allows(
    allowed: tuple[str, ...], name: str
) -> None:
    with pytest.raises(InvalidRequest) as error:
        check_environment({name: "x"}, allowed, agent_type="a")
    assert str(error.value.details["field"]).startswith("environment")
    assert "setting" not in error.value.details


@pytest.mark.parametrize(
    ("agent_type", "name"), [("plain", "OTHER"), ("plain", "TASK"), ("plain", "MY_TASK_ID"), ("named", "TASK_ID")]
)
def test_a_name_that_the_profile_does_not_allow_is_refused_with_the_setting(
    fleet: Fleet, agent_type: str, name: str
) -> None:
    with pytest.raises(InvalidRequest) as error:
        fleet.spawn(agent_type, environment={name: "x"})
    assert fleet.ask(m.ListAgents(project_id=None)) == ()
    assert error.value.details["setting"] == f"profiles.{agent_type}.request_env"
    assert f"profiles.{agent_type}.request_env" in error.value.message
    assert name in error.value.message


@pytest.mark.parametrize(
    ("agent_type", "names"),
    [("plain", ("TASK_ID", "APP_MODE")), ("named", ("SUITE", "RUN_7_ID")), ("all", ("ANYTHING", "a.b-c", "TASK_ID"))],
)
def test_a_name_that_the_profile_allows_reaches_the_process(
    fleet: Fleet, agent_type: str, names: tuple[str, ...]
) -> None:
    agent = fleet.spawn_id(agent_type, environment={name: f"of {name}" for name in names})
    fleet.wait_for_state(agent, AgentState.COMPLETED)
    seen = dict(line.split("=", 1) for line in fleet.log(agent).splitlines())
    assert {name: seen.get(name) for name in names} == {name: f"of {name}" for name in names}


def test_the_answer_over_http_names_the_setting(sidecar: Any) -> None:
    body = {"agent_type": "python-specialist", "issue_id": "i", "environment": {"SUITE": "fast"}}
    answer = sidecar.operator.post("/api/agents/spawn", json=body)
    assert (answer.status_code, answer.json()["code"]) == (400, "REQ_001")
    assert answer.json()["details"]["setting"] == "profiles.python-specialist.request_env"


@pytest.mark.parametrize("pattern", ["PATH", "JWT_TOKEN", "", "A=B", "1A", "A B", "BASH_FUNC_x%%"])
def test_a_pattern_that_can_allow_nothing_stops_the_start(tmp_path: Path, pattern: str) -> None:
    (tmp_path / "sidecar.toml").write_text(f"[profiles.a]\nrequest_env = [{msgspec.json.encode(pattern).decode()}]\n")
    with pytest.raises(ConfigError, match=r"profiles\.a\.request_env"):
        config.load(config.Flags(), {}, working_dir=tmp_path)


@given(st.text("AB*", max_size=8), st.text("AB", max_size=12))
def test_a_star_stands_for_any_characters(pattern: str, name: str) -> None:
    assert matches(name, pattern) == (re.fullmatch(fnmatch.translate(pattern), name) is not None)


@given(st.from_regex(r"\A(TASK|APP)_[A-Z0-9_]{0,8}\Z"))
@example("TASK_BASE_URL")
@example("APP_CONFIG_FILE")
@example("APP_HTTP_PROXY")
def test_what_is_allowed_by_default_is_never_refused_for_its_name(name: str) -> None:
    assert not changes_code(name)
    check_environment({name: "value"}, ("TASK_*", "APP_*"), agent_type="a")


def test_every_pattern_of_names_that_change_code_is_a_pattern() -> None:
    assert not is_pattern("")
    assert all(is_pattern(pattern) for pattern in ("*", "A*", "*_A", "A_*_B", "_A"))


def test_a_request_sets_a_bounded_number_of_variables_with_names_of_bounded_length() -> None:
    check_environment({f"TASK_{at}": "x" for at in range(MAX_VARIABLES)}, ("TASK_*",), agent_type="plain")
    check_environment({"TASK".ljust(MAX_NAME_CHARS, "_"): "x"}, ("TASK_*",), agent_type="plain")
    for environment in (
        {f"TASK_{at}": "x" for at in range(MAX_VARIABLES + 1)},
        {"TASK".ljust(MAX_NAME_CHARS + 1, "_"): "x"},
    ):
        with pytest.raises(InvalidRequest) as error:
            check_environment(environment, ("TASK_*",), agent_type="plain")
        assert error.value.details["field"] == "environment"
        assert len(error.value.message) < 2 * MAX_NAME_CHARS


@pytest.mark.parametrize("name", ["MY_PROXY", "my_proxy", "X_INCLUDE_PATH", "LD_", "GIT_", "GCC_A"])
def test_names_that_end_or_begin_in_a_dangerous_way_change_code(name: str) -> None:
    assert changes_code(name)
    assert not changes_code(f"TASK_{name}_X")
