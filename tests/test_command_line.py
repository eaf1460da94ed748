"""The command line: every command against a real sidecar, what it prints, and what its exit code says."""

from __future__ import annotations

import csv
import http.server
import io
import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone
from functools import partial
from pathlib import Path
from typing import Any

import click
import pytest
from click.testing import CliRunner, Result
from freezegun import freeze_time

from sidecar.http.cli import terminal as cli_output
from sidecar.http.cli.main import SUBCOMMANDS, main
from tests.output_lines import OutputLines

SIDECAR = [sys.executable, "-m", "sidecar.http.cli.main"]
DEADLINE_S = 20.0

Run = Callable[..., Result]


@pytest.fixture
def run(sidecar: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    """Runs a command as an operator of the running sidecar, and checks its exit code."""
    monkeypatch.chdir(tmp_path)
    env = {"SIDECAR_URL": sidecar.url, "SIDECAR_STORAGE": str(sidecar.storage), "JWT_TOKEN": None}

    def invoke(*arguments: str, code: int = 0, input: str | None = None, **more: Any) -> Result:
        done = CliRunner().invoke(main, arguments, env=env | more, input=input, catch_exceptions=False)
        assert done.exit_code == code, done.output
        return done

    return invoke


@pytest.fixture
def processes() -> Iterator[list[subprocess.Popen[str]]]:
    started: list[subprocess.Popen[str]] = []
    yield started
    for process in started:
        process.kill()
        process.wait()


def start(processes: list[subprocess.Popen[str]], *arguments: str, **env: str) -> subprocess.Popen[str]:
    argv, pipe = [*SIDECAR, *arguments], subprocess.PIPE
    processes.append(subprocess.Popen(argv, env=os.environ | env, text=True, stdout=pipe, stderr=pipe))
    return processes[-1]


def commands(group: click.Group = main, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        yield (*path, name), command


class Files(http.server.SimpleHTTPRequestHandler):
    """Another program that speaks HTTP, and says nothing about it."""

    def log_message(self, *_: object) -> None: ...


class TestHelp:
    @pytest.mark.parametrize("path", [pytest.param(path, id=" ".join(path)) for path, _ in commands()])
    def test_of_every_command_says_what_it_does(self, path: tuple[str, ...]) -> None:
        shown = CliRunner().invoke(main, [*path, "--help"]).output
        command = dict(commands())[path]
        assert len((command.help or "").split()) >= 4
        assert "Usage:" in shown
        for parameter in command.params:
            if isinstance(parameter, click.Option) and parameter.name not in (
                "priority",
                "stream",
                "status",
                "max_bytes",
            ):
                assert parameter.help or "default" in shown, f"{parameter.name} is not explained"

    @pytest.mark.parametrize("path", [pytest.param(path, id=" ".join(path)) for path, _ in commands()])
    def test_of_a_command_with_more_than_one_way_has_an_example_that_parses(self, path: tuple[str, ...]) -> None:
        command = dict(commands())[path]
        examples = [line for line in (command.help or "").splitlines() if line.strip().startswith("Example:")]
        if len(command.params) > 5:
            assert examples
        for example in examples:
            words = example.partition("sidecar ")[2].partition(" | ")[0].partition(" > ")[0].rstrip(")").split()
            assert tuple(words[: len(path)]) == path or isinstance(command, click.Group)

    def test_names_the_commands_that_go_by_the_storage_and_not_by_a_url(self) -> None:
        shown = " ".join((main.help or "").split())
        named = shown.partition("not by a URL: ")[2].partition(".")[0].split(", ")
        taken = {path: {option.name for option in command.params} for path, command in commands()}
        without = [" ".join(path) for path, names in taken.items() if "storage" in names and "url" not in names]
        assert sorted(named) == sorted(set(without) - {"serve"})

    def test_names_every_command_of_the_protocol(self) -> None:
        wanted = {"serve", "stop", "status", "token", "agent", "context", "results", "events", "actors", "demo"}
        assert wanted <= {name for (name, *below), _ in commands() if not below}
        of_agent = {path[1] for path, _ in commands() if path[0] == "agent" and len(path) > 1}
        assert {"spawn", "list", "show", "kill", "restart", "logs"} <= of_agent

    @pytest.mark.parametrize("group", ["", *(name for (name, *below), _ in commands() if not below)])
    def test_fits_each_command_into_its_line(self, group: str) -> None:
        listed = CliRunner().invoke(main, [*group.split(), "--help"]).output.partition("Commands:")[2]
        assert "..." not in listed

    def test_of_all_lists_each_command_with_the_first_sentence_of_its_own(self) -> None:
        for path, command in commands():
            if len(path) == 1:
                assert " ".join((command.help or "").split()).startswith(SUBCOMMANDS[path[0]].help)

    def test_is_quick_because_nothing_heavy_is_imported_for_it(self) -> None:
        heavy = "rich, pykka, git, tinydb, waitress, bottle, jwt, psutil, httpx"
        code = (
            "import sys\nfrom sidecar.http.cli.main import main\n"
            "try: main(['--help'])\nexcept SystemExit: pass\n"
            f"print('loaded', [m for m in '{heavy}'.split(', ') if m in sys.modules])"
        )
        shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=True)
        assert shown.stdout.splitlines()[-1] == "loaded []"

    def test_completion_is_offered_to_shells(self) -> None:
        env = os.environ | {"_SIDECAR_COMPLETE": "bash_complete", "COMP_WORDS": "sidecar agent ", "COMP_CWORD": "2"}
        code = "from sidecar.http.cli.main import main; main(prog_name='sidecar')"
        shown = subprocess.run(
            [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=30, check=False
        )
        assert "plain,spawn" in shown.stdout.splitlines()


class TestExitCodes:
    def test_one_when_the_server_said_no_and_its_words_are_on_standard_error(self, run: Run) -> None:
        done = run("agent", "show", "nobody", code=1)
        assert done.stderr.startswith("Error: agent nobody is not known (REQ_404, request ")
        assert done.stdout == ""

    def test_two_for_wrong_usage(self, run: Run) -> None:
        run("agent", "list", "--state", "happy", code=2)
        run("context", "clear", code=2)
        run("token", code=2)
        run("agent", "spawn", "python-specialist", "issue-1", "--env", "novalue", code=2)
        run("events", "publish", "x", "--data", "[1]", code=2)

    def test_two_for_a_configuration_that_is_wrong(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "sidecar.toml").write_text("[server]\nprot = 1\n")
        done = run("serve", code=2)
        assert "did you mean port?" in done.stderr

    @pytest.mark.parametrize(
        "arguments",
        [
            ("agent", "show", "\udcff"),
            ("events", "list", "--filter", "a:\udcff"),
            ("events", "publish", "tick", "--data", '{"a": "\udcff"}'),
            ("agent", "spawn", "python-specialist", "issue-1", "--task", "\udcff"),
        ],
        ids=lambda arguments: " ".join(arguments[:2]),
    )
    def test_two_for_bytes_that_are_no_text(self, run: Run, arguments: tuple[str, ...]) -> None:
        assert "is not UTF-8" in run(*arguments, code=2).stderr

    @pytest.mark.parametrize("token", ["ä", "a\nb"])
    def test_two_for_what_is_no_token(self, run: Run, token: str) -> None:
        error = run("status", "--token", token, code=2).stderr
        assert "Invalid value for --token" in error
        assert token not in error

    def test_two_where_the_working_directory_is_gone(self, run: Run, tmp_path: Path) -> None:
        gone = tmp_path / "gone"
        gone.mkdir()
        os.chdir(gone)
        gone.rmdir()
        gone_too = {"SIDECAR_URL": None, "SIDECAR_STORAGE": None}
        assert run("status", code=2, **gone_too).stderr == "Error: the working directory is not there any more\n"

    def test_three_for_a_storage_that_cannot_be_one(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        done = run("stop", "--storage", "file/storage", code=3)
        assert done.stderr == f"Error: no sidecar runs with storage {tmp_path / 'file' / 'storage'}\n"

    def test_one_for_a_file_that_cannot_be_read(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "loop").symlink_to("loop")
        error = run("stop", "--storage", "loop/storage", code=1).stderr
        assert error.startswith("Error: /")
        assert error.endswith("/storage: Too many levels of symbolic links\n")

    @pytest.mark.parametrize(
        "url", ["foo", "127.0.0.1:3001", "http://", "http://[::1", "http://h:99999", "http://h:0", "http://a b"]
    )
    def test_two_for_what_is_no_url(self, run: Run, url: str) -> None:
        assert "expected http://HOST:PORT" in run("status", "--url", url, code=2).stderr

    def test_one_when_what_answers_is_no_sidecar(self, run: Run, tmp_path: Path) -> None:
        files = partial(Files, directory=str(tmp_path))
        (tmp_path / "health").write_text("I am well\n")
        with http.server.ThreadingHTTPServer(("127.0.0.1", 0), files) as server:
            threading.Thread(target=server.serve_forever).start()
            url = f"http://127.0.0.1:{server.server_port}"
            try:
                for command in ("status", "actors"):
                    assert "was sent no token" in run(command, "--url", url, code=3).stderr
                    error = run(command, "--url", url, "--token", "a.b.c", code=1).stderr
                    assert error.startswith(f"Error: what answers at {url} is no sidecar")
                    assert error.count("\n") == 1
            finally:
                server.shutdown()

    def test_three_when_no_server_is_there(self, run: Run) -> None:
        done = run("status", code=3, SIDECAR_URL="http://127.0.0.1:9")
        assert done.stderr.startswith("Error: no sidecar answers at http://127.0.0.1:9: ")
        assert "`sidecar serve`" in done.stderr

    def test_name_a_storage_by_where_it_really_is(self, run: Run, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "link").symlink_to("real")
        real = tmp_path / "real" / "storage"
        for named in ("link/storage", "real/../link/storage"):
            done = run("stop", "--storage", named, code=3)
            assert done.stderr == f"Error: no sidecar runs with storage {real}\n"
            findings = json.loads(run("doctor", "--format", "json", "--storage", named, SIDECAR_PORT="0").stdout)[
                "findings"
            ]
            inside, to_be_made = [finding["found"] for finding in findings if finding["check"] == "storage"]
            assert inside.startswith(f"{real} lies in the project {tmp_path}")
            assert to_be_made == f"{real} will be made at the first start"

    def test_three_when_no_sidecar_ever_ran_here_and_nothing_is_made_by_asking(self, run: Run, tmp_path: Path) -> None:
        done = run("agent", "list", code=3, SIDECAR_URL=None, SIDECAR_STORAGE=str(tmp_path / "none"))
        assert done.stderr.count("`sidecar serve`") == 1
        assert not (tmp_path / "none").exists()


class TestOutput:
    @pytest.mark.parametrize("unbuffered", ["", "1"], ids=["buffered", "unbuffered"])
    @pytest.mark.parametrize("arguments", [["--help"], ["status"], ["actors", "--format", "csv"]], ids=" ".join)
    def test_to_a_full_disk_ends_with_one_line(self, sidecar: Any, arguments: list[str], unbuffered: str) -> None:
        env = {"SIDECAR_URL": sidecar.url, "JWT_TOKEN": sidecar.operator_token(), "PYTHONUNBUFFERED": unbuffered}
        with Path("/dev/full").open("w") as full:
            done = subprocess.run(
                [*SIDECAR, *arguments],
                env=os.environ | env,
                text=True,
                stdout=full,
                stderr=subprocess.PIPE,
                timeout=DEADLINE_S,
                check=False,
            )
        assert done.stderr == "Error: standard output cannot be written: No space left on device\n"
        assert done.returncode == 1

    def test_that_is_closed_is_no_error(self, sidecar: Any) -> None:
        env = {"SIDECAR_URL": sidecar.url, "JWT_TOKEN": sidecar.operator_token()}
        closing = ["sh", "-c", 'exec "$@" >&-', "sh", *SIDECAR, "status"]
        done = subprocess.run(
            closing, env=os.environ | env, text=True, stderr=subprocess.PIPE, timeout=DEADLINE_S, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")

    def test_as_json_is_the_whole_answer_of_the_server(self, run: Run, sidecar: Any) -> None:
        def answer(*arguments: str) -> Any:
            return json.loads(run(*arguments, "--format", "json").stdout)

        published = answer("events", "publish", "tick")
        assert set(published) == set(sidecar.operator.post("/api/events/tick", json={"data": {}}).json())
        assert answer("results", "store", "issue-1", '{"status": "success"}')["stored"]
        agent_id = sidecar.spawn("go-specialist")["agent_id"]
        shown = set(answer("agent", "show", agent_id))
        assert set(answer("agent", "restart", agent_id)) == set(answer("agent", "kill", agent_id)) == shown

    def test_as_json_counts_what_is_listed(self, run: Run, sidecar: Any) -> None:
        sidecar.spawn("go-specialist", "issue-1")
        sidecar.spawn("go-specialist", "issue-2")
        listed = json.loads(run("agent", "list", "--issue", "issue-1", "--format", "json").stdout)
        assert (len(listed["agents"]), listed["total"]) == (1, 1)


class TestTokens:
    def test_are_printed_and_nothing_else_and_the_server_takes_them(self, run: Run, sidecar: Any) -> None:
        token = run("token", "--operator", "--ttl", "60").stdout
        assert token.count("\n") == 1
        assert sidecar.client(token.strip()).get("/api/mailboxes").status_code == 200

    def test_of_an_agent_may_do_what_its_type_may(self, run: Run, sidecar: Any) -> None:
        options = ("--agent-type", "python-specialist", "--agent-id", "ada", "--project", "default", "--issue", "i-1")
        client = sidecar.client(run("token", *options).stdout.strip())
        assert client.get("/api/results").status_code == 200
        assert client.post("/api/agents/spawn", json={"agent_type": "x", "issue_id": "i"}).status_code == 403

    @pytest.mark.parametrize(
        ("options", "error"),
        [
            (("--agent-type", "a b"), "agent_type is not an identifier; expected 1 to 128 of A-Z"),
            (("--agent-type", "x", "--agent-id", "a b"), "agent_id is not an identifier; expected 1 to 128 of A-Z"),
            (("--operator", "--project", "a b"), "project_id is not an identifier; expected 1 to 128 of A-Z"),
            (("--operator", "--ttl", "99999999"), "ttl is out of range; expected 1 to 31622400 seconds"),
            (("--operator", "--issue", "issue-1"), "--class and --issue go with --agent-type"),
        ],
    )
    def test_of_what_cannot_be_are_wrong_usage(self, run: Run, options: tuple[str, ...], error: str) -> None:
        done = run("token", *options, code=2)
        assert f"Error: {error}" in done.stderr
        assert done.stdout == ""

    def test_that_have_expired_are_told_where_others_come_from(self, run: Run) -> None:
        with freeze_time("2026-01-01"):
            old = run("token", "--operator", "--ttl", "1").stdout.strip()
        assert "`sidecar token`" in run("agent", "list", code=1, JWT_TOKEN=old).stderr

    def test_given_to_a_command_decide_what_it_may(self, run: Run, sidecar: Any) -> None:
        token = sidecar.token("python-specialist", "ada")
        done = run("agent", "spawn", "python-specialist", "issue-1", code=1, JWT_TOKEN=token)
        assert "AUTH_003" in done.stderr


class TestServing:
    def test_listens_where_it_says_and_stops_when_told(
        self, processes: list[subprocess.Popen[str]], project: Path, tmp_path: Path
    ) -> None:
        storage = str(tmp_path / "storage")
        server = start(processes, "serve", "--port", "0", "--storage", storage, "--project-root", str(project))
        listens = OutputLines(server, within_s=DEADLINE_S).next()
        url = listens.split()[-1]
        assert listens.startswith("sidecar listens on http://127.0.0.1:")
        env = {"SIDECAR_URL": url, "SIDECAR_STORAGE": storage, "JWT_TOKEN": None}
        status = CliRunner().invoke(main, ["status", "--format", "json"], env=env)
        assert json.loads(status.output)["health"]["status"] == "healthy"
        second = start(processes, "serve", "--port", "0", "--storage", storage, "--project-root", str(project))
        _, error = second.communicate(timeout=DEADLINE_S)
        assert second.returncode != 0
        advice = "if that is a sidecar, `sidecar stop` ends it"
        assert error == f"Error: {storage} is in use by process {server.pid}; {advice}\n"
        stopped = CliRunner().invoke(main, ["stop"], env=env)
        assert stopped.output == f"stopped process {server.pid}\n"
        assert server.wait(timeout=DEADLINE_S) == 0
        assert CliRunner().invoke(main, ["stop"], env=env).exit_code == 3

    def test_of_another_user_is_not_stopped_and_said_so(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        def refuse(*_: int) -> None:
            raise PermissionError(1, "Operation not permitted")

        monkeypatch.setattr(os, "kill", refuse)
        error = f"Error: process {os.getpid()} belongs to another user; only that user, or root, can stop it\n"
        assert run("stop", code=1).stderr == error

    def test_refuses_a_port_that_is_taken_in_words(
        self, processes: list[subprocess.Popen[str]], sidecar: Any, tmp_path: Path
    ) -> None:
        port = sidecar.url.rpartition(":")[2]
        server = start(processes, "serve", "--port", port, "--storage", str(tmp_path / "other"))
        _, error = server.communicate(timeout=DEADLINE_S)
        assert server.returncode == 2
        assert error == (
            f"Error: port {port} of 127.0.0.1 is in use: name another with --port, or 0 for any that is free\n"
        )


class TestStatus:
    def test_says_what_its_numbers_count(self, run: Run, sidecar: Any) -> None:
        sidecar.spawn("go-specialist")
        sidecar.wait_for("agent_started")
        published = sidecar.operator.get("/status").json()["events"]["total_published"]
        shown = dict(line.split(maxsplit=1) for line in run("status").stdout.splitlines())
        assert shown["agents"] == "1 active, 0 queued, 0 completed, 0 failed, 0 restarts"
        assert shown["spawned"] == "1 go-specialist"
        assert shown["events"].startswith(f"{published} published and ")
        assert " delivered since the start, 0 waiting, " in shown["events"]
        assert f"  {published} events since the start  " in run("top").stdout


class TestAgents:
    def test_spawned_with_wait_end_before_the_command_does(self, run: Run) -> None:
        done = run("agent", "spawn", "python-specialist", "issue-1", "--task", "try", "--wait", "--format", "json")
        assert json.loads(done.stdout)["state"] == "completed"
        done = run("agent", "spawn", "rust-specialist", "issue-1", "--wait", code=1)
        assert "failed" in done.stdout
        assert "broken" in done.stdout

    def test_spawned_quietly_print_their_id_alone(self, run: Run, sidecar: Any) -> None:
        agent_id = run("agent", "spawn", "go-specialist", "issue-1", "--quiet").stdout.strip()
        assert sidecar.operator.get(f"/api/agents/{agent_id}").json()["issue_id"] == "issue-1"
        failed = run("agent", "spawn", "rust-specialist", "issue-1", "-q", "--wait", code=1).stdout.strip()
        assert sidecar.operator.get(f"/api/agents/{failed}").json()["state"] == "failed"

    def test_are_listed_as_the_api_lists_them(self, run: Run, sidecar: Any) -> None:
        sidecar.spawn("go-specialist", "issue-7")
        sidecar.spawn("python-specialist", "issue-8")
        sidecar.wait_for("agent_exited", "agent_type:python-specialist")
        listed = json.loads(run("agent", "list", "--format", "json").stdout)["agents"]
        assert {row["agent_id"] for row in listed} == {
            row["agent_id"] for row in sidecar.operator.get("/api/agents").json()["agents"]
        }
        rows = list(csv.DictReader(io.StringIO(run("agent", "list", "--state", "running", "--format", "csv").stdout)))
        assert [row["issue_id"] for row in rows] == ["issue-7"]
        assert rows[0]["process_id"].isdigit()
        assert run("agent", "list", "--issue", "issue-9").stderr == "no agents\n"

    def test_are_shown_with_how_they_last_ended(self, run: Run, sidecar: Any) -> None:
        def last_exit(agent_id: str) -> str:
            (line,) = [line for line in run("agent", "show", agent_id).stdout.splitlines() if "exit  " in line]
            return line.removeprefix("last exit").strip()

        failed = sidecar.spawn("rust-specialist")["agent_id"]
        sidecar.wait_for("agent_failed", f"agent_id:{failed}")
        assert last_exit(failed) == "exit 3"
        running = sidecar.spawn("go-specialist")["agent_id"]
        run("agent", "restart", running)
        assert last_exit(running) == "killed"

    def test_are_killed_and_restarted_by_name(self, run: Run, sidecar: Any) -> None:
        agent_id = sidecar.spawn("go-specialist")["agent_id"]
        assert "running" in run("agent", "restart", agent_id).stdout
        assert "stopped" in run("agent", "kill", agent_id, "--timeout", "5").stdout
        assert json.loads(run("agent", "show", agent_id, "--format", "json").stdout)["incarnation"] == 2

    def test_show_what_they_printed_and_what_they_go_on_to_print(
        self, run: Run, sidecar: Any, processes: list[subprocess.Popen[str]]
    ) -> None:
        agent_id = sidecar.spawn("go-specialist")["agent_id"]
        environment = {"SIDECAR_URL": sidecar.url, "JWT_TOKEN": sidecar.operator_token()}
        follower = start(processes, "agent", "logs", agent_id, "-f", **environment)
        lines = OutputLines(follower, within_s=DEADLINE_S)
        assert lines.next() == "ready\n"
        run("agent", "restart", agent_id)
        assert lines.next() == "ready\n"
        run("agent", "kill", agent_id)
        assert follower.wait(timeout=DEADLINE_S) == 0
        assert run("agent", "logs", agent_id).stdout == "ready\nready\n"

    def test_show_which_contexts_they_were_given(self, run: Run, sidecar: Any) -> None:
        spawned = sidecar.spawn("go-specialist")
        assert run("agent", "contexts", spawned["agent_id"]).stderr == "no contexts\n"
        sidecar.client(spawned["jwt_token"]).get("/api/context/issue-1/go-specialist", params={"q": "a query"})
        assert "a query" in run("agent", "contexts", spawned["agent_id"]).stdout
        (row,) = csv.DictReader(io.StringIO(run("agent", "contexts", spawned["agent_id"], "--format", "csv").stdout))
        assert (row["outcome"], row["cache_hit"]) == ("sent", "false")
        run("agent", "contexts", "nobody", code=1)

    def test_get_no_environment_that_changes_what_code_runs(self, run: Run) -> None:
        asked = run("agent", "spawn", "python-specialist", "issue-1", "--env", "PATH=/tmp", code=1)
        assert "PATH" in asked.stderr


class TestContexts:
    def test_are_shown_as_an_agent_would_get_them(self, run: Run) -> None:
        shown = run("context", "get", "issue-1", "python-specialist").stdout
        assert "src/app.py" in shown
        answer = json.loads(run("context", "get", "issue-1", "python-specialist", "--format", "json").stdout)
        assert answer["context"]["git_context"]["branch"] == "main"
        assert answer["cache_hit"]

    def test_explain_why_a_file_is_in_the_context(self, run: Run, project: Path) -> None:
        (project / ".env").write_text("PASSWORD=hunter2\n")
        (project / "src" / "app.py").write_text("def answer():\n    return [42]\n")
        asked = ("context", "get", "issue-1", "python-specialist", "--query", "the [answer] is wrong", "--file", ".env")
        shown = run(*asked, "--explain").stdout
        assert "the [answer] is wrong (q)" in shown
        (line,) = [line for line in shown.splitlines() if "src/app.py" in line]
        assert line.split()[2:] == ["1.000", "text", "all"]
        assert [line.split() for line in shown.splitlines() if ".env" in line] == [[".env", "17", "secret"]]
        assert shown.rstrip().endswith("1 secret")

    def test_are_built_anew_and_forgotten_on_demand(self, run: Run) -> None:
        run("context", "get", "issue-1", "python-specialist")
        anew = json.loads(run("context", "refresh", "issue-1", "python-specialist", "--format", "json").stdout)
        assert not anew["cache_hit"]
        cleared = json.loads(run("context", "clear", "issue-1", "--format", "json").stdout)
        assert cleared["entries_removed"] >= 1
        run("context", "clear", "--all")


class TestResults:
    def test_are_stored_listed_and_given_back_whole(self, run: Run, tmp_path: Path) -> None:
        whole = {"status": "success", "decisions": ["by hand"], "more": {"n": [1, None]}}
        (tmp_path / "result.json").write_text(json.dumps(whole))
        (tmp_path / "marked.json").write_text(json.dumps(whole), encoding="utf-8-sig")
        sources = ("@result.json", None), ("-", json.dumps(whole)), (json.dumps(whole), None), ("@marked.json", None)
        for source, given in sources:
            stored = run("results", "store", "issue-5", source, "--format", "json", input=given)
            result_id = json.loads(stored.stdout)["id"]
            assert json.loads(run("results", "get", result_id).stdout)["result"] == whole
        listed = json.loads(run("results", "list", "--issue", "issue-5", "--format", "json").stdout)
        assert listed["total"] == 4
        assert "by hand" in run("results", "list", "--status", "success").stdout
        assert run("results", "list", "--status", "failed").stderr == "no results\n"
        assert "2 of 4; older ones: --cursor" in run("results", "list", "--limit", "2").stderr

    @pytest.mark.parametrize(
        "raw", [b'{"a": "\xff"}', b'{"a":' * 3000 + b"1" + b"}" * 3000, b""], ids=["bytes", "deep", ""]
    )
    def test_that_are_no_json_object_are_wrong_usage(self, run: Run, tmp_path: Path, raw: bytes) -> None:
        (tmp_path / "result.json").write_bytes(raw)
        assert "is no JSON object" in run("results", "store", "issue-5", "@result.json", code=2).stderr

    def test_from_a_closed_standard_input_are_wrong_usage(self, sidecar: Any) -> None:
        env = {"SIDECAR_URL": sidecar.url, "JWT_TOKEN": sidecar.operator_token()}
        closing = ["sh", "-c", 'exec "$@" <&-', "sh", *SIDECAR, "results", "store", "issue-5", "-"]
        done = subprocess.run(
            closing, env=os.environ | env, text=True, capture_output=True, timeout=DEADLINE_S, check=False
        )
        assert done.returncode == 2
        assert done.stderr.endswith("Error: Invalid value for RESULT: standard input is closed\n")


class TestTimes:
    @pytest.mark.parametrize(
        ("past", "future"),
        [
            ("2026-01-31", "9999-12-30"),
            ("2026-01-31T09:00:00", "9999-12-30T09:00:00"),
            ("2026-01-31T09:00:00Z", "9999-12-30T09:00:00Z"),
            ("2026-01-31T09:00:00.5+02:00", "9999-12-30T09:00:00.5+02:00"),
        ],
    )
    def test_are_taken_with_and_without_an_offset_and_as_dates(self, run: Run, past: str, future: str) -> None:
        run("results", "store", "issue-1", '{"status": "success", "decisions": ["by hand"]}')
        run("events", "publish", "tick")
        for what, shown in (("results", "by hand"), ("events", "tick")):
            assert shown in run(what, "list", "--since", past).stdout
            assert run(what, "list", "--since", future).stderr == f"no {what}\n"
        assert shown in run("events", "subscribe", "tick", "--since", past).stdout
        assert "by hand" in run("results", "list", "--until", future).stdout
        assert run("results", "list", "--until", past).stderr == "no results\n"

    def test_without_an_offset_are_local(self, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
        run("events", "publish", "tick")
        (event,) = json.loads(run("events", "list", "--type", "tick", "--format", "json").stdout)["events"]
        at = datetime.fromisoformat(event["timestamp"])
        east = at.astimezone(timezone(timedelta(hours=11)))
        with monkeypatch.context() as patch:
            patch.setenv("TZ", "EAST-11")
            time.tzset()
            assert "tick" in run("events", "list", "--since", f"{east:%Y-%m-%dT%H:%M:%S}").stdout
        time.tzset()

    @pytest.mark.parametrize("text", ["yesterday", "2026-13-01", "2026-1-1", "evt-1"])
    @pytest.mark.parametrize(
        "command", [("results", "list"), ("events", "list"), ("events", "subscribe")], ids=" ".join
    )
    def test_that_cannot_be_read_are_told_what_was_expected(
        self, run: Run, command: tuple[str, ...], text: str
    ) -> None:
        error = run(*command, "--since", text, code=2).stderr
        assert f"'--since': '{text}' cannot be read; expected " in error
        assert "2026-01-31T09:00:00Z" in error

    def test_that_no_calendar_has_in_utc_are_wrong_usage(self, run: Run) -> None:
        run("results", "list", "--until", "0001-01-01T00:00:00+05:00", code=2)


class TestEvents:
    def test_are_given_to_a_subscriber_once(self, run: Run) -> None:
        run("events", "publish", "greeting", "--data", '{"to": "ada"}', "--correlation-id", "c-1")
        first = run("events", "subscribe", "greeting", "--filter", "to:ada", "--format", "json")
        assert json.loads(first.stdout)["correlation_id"] == "c-1"
        run("events", "subscribe", "greeting", "--filter", "to:ada", "--timeout", "0", code=1)

    def test_are_printed_as_they_come_until_interrupted(
        self, run: Run, sidecar: Any, processes: list[subprocess.Popen[str]]
    ) -> None:
        environment = {"SIDECAR_URL": sidecar.url, "JWT_TOKEN": sidecar.operator_token()}
        options = ("--continuous", "--since", "latest", "--format", "json")
        follower = start(processes, "events", "subscribe", "tick", *options, **environment)
        lines = OutputLines(follower, within_s=DEADLINE_S)
        deadline = time.monotonic() + DEADLINE_S
        while sidecar.operator.get("/status").json()["events"]["active_subscriptions"] == 0:
            assert time.monotonic() < deadline
        for n in range(3):
            run("events", "publish", "tick", "--data", json.dumps({"n": n}))
            assert json.loads(lines.next())["data"] == {"n": n}
        follower.send_signal(signal.SIGINT)
        assert follower.wait(timeout=DEADLINE_S) == 0

    def test_are_listed_newest_first_with_nobodys_place_moved(self, run: Run) -> None:
        for n in range(3):
            run("events", "publish", "tick", "--data", json.dumps({"n": n}))
        rows = list(csv.DictReader(io.StringIO(run("events", "list", "--type", "tick", "--format", "csv").stdout)))
        assert [json.loads(row["data"])["n"] for row in rows] == [2, 1, 0]
        assert run("events", "subscribe", "tick", "--format", "csv").stdout.count("\n") == 3

    def test_come_in_pages(self, run: Run) -> None:
        for n in range(3):
            run("events", "publish", "tick", "--data", json.dumps({"n": n}))
        first = run("events", "list", "--type", "tick", "--limit", "2")
        assert "2 of 3; older ones: --cursor" in first.stderr
        cursor = first.stderr.split()[-1]
        listed = json.loads(run("events", "list", "--type", "tick", "--cursor", cursor, "--format", "json").stdout)
        assert [event["data"]["n"] for event in listed["events"]] == [0]

    def test_show_who_reads_them_and_how_far_behind(self, run: Run) -> None:
        run("events", "publish", "tick")
        run("events", "subscribe", "tick")
        run("events", "publish", "tick")
        (mailbox,) = csv.DictReader(io.StringIO(run("events", "mailboxes", "--format", "csv").stdout))
        assert (mailbox["agent_id"], mailbox["event_types"], mailbox["lag"]) == ("operator", '["tick"]', "1")
        assert "tick" in run("events", "mailboxes").stdout

    def test_that_everyone_died_of_are_dead_letters(self, run: Run) -> None:
        assert run("events", "dead-letters").stderr == "no dead letters\n"
        run("events", "dead-letters", "--replay", "evt-0000000000000001", code=1)

    def test_refuse_a_filter_that_cannot_be_read(self, run: Run) -> None:
        assert "EVT_003" in run("events", "list", "--filter", "no colon", code=1).stderr

    def test_say_what_was_expected_instead(self, run: Run) -> None:
        assert "; expected a value" in run("events", "list", "--filter", "a:", code=1).stderr


class TestTables:
    def test_show_text_of_agents_as_it_is(self, run: Run) -> None:
        hostile = "[red]not markup[/] \x1b[2Jnot a command\x07"
        run("results", "store", "issue-1", json.dumps({"status": "success", "decisions": [hostile]}))
        shown = run("results", "list").stdout
        assert "[red]not markup[/]" in shown
        assert "\x1b" not in shown
        assert "\x07" not in shown

    def test_are_not_cut_in_a_pipe_and_have_no_trailing_blanks(self, run: Run) -> None:
        long = "x" * 500
        run("results", "store", "issue-1", json.dumps({"status": "success", "decisions": [long]}))
        lines = run("results", "list").stdout.splitlines()
        assert long in lines[1]
        assert all(line == line.rstrip() for line in lines)

    def test_fit_a_terminal_and_leave_what_must_not_be_cut(self, sidecar: Any) -> None:
        for n in range(3):
            sidecar.operator.post("/api/events/tick", json={"data": {"text": "long " * 40, "n": n}})
        shown = on_a_terminal(["events", "list", "--type", "tick"], sidecar, columns=90)
        lines = [line for line in shown.splitlines() if "evt-" in line]
        assert len(lines) == 3
        assert all(len(line.rstrip()) <= 90 and "…" in line and "operator" in line for line in lines)

    def test_cut_no_id_however_narrow_the_terminal_is(self, sidecar: Any) -> None:
        published = sidecar.operator.post("/api/events/tick", json={"data": {"text": "long " * 40}}).json()
        stored = sidecar.operator.post(
            "/api/results",
            json={
                "agent_id": "operator",
                "agent_type": "operator",
                "issue_id": "issue-1",
                "project_id": "default",
                "result": {"status": "success"},
            },
        ).json()
        for what, kept in ((["events", "list"], published["event_id"]), (["results", "list"], stored["id"])):
            assert kept in on_a_terminal(what, sidecar, columns=60)

    @pytest.mark.parametrize(
        ("shown", "value", "text"),
        [
            (cli_output.seconds, 4.21, "4.2 s"),
            (cli_output.seconds, 187, "03:07"),
            (cli_output.seconds, 3787, "1:03:07"),
            (cli_output.number(1, " MB"), 1234.56, "1,234.6 MB"),
            (cli_output.clock, None, ""),
            (partial(cli_output.plural, one="mailbox", many="mailboxes"), 1, "1 mailbox"),
            (partial(cli_output.plural, one="mailbox", many="mailboxes"), 2, "2 mailboxes"),
            (partial(cli_output.plural, one="event"), 1000, "1,000 events"),
        ],
    )
    def test_write_numbers_for_people(self, shown: Callable[[Any], str], value: Any, text: str) -> None:
        assert shown(value) == text


class TestTheDashboard:
    def test_opens_by_a_link_that_is_good_once_and_holds_no_token(self, run: Run, sidecar: Any) -> None:
        link = run("dashboard", "--print").stdout.strip()
        assert link.startswith(f"{sidecar.url}/login?code=")
        anyone = sidecar.client()
        assert anyone.get(link).status_code == 200
        code = link.partition("code=")[2]
        assert anyone.post("/api/auth/login", json={"code": code}).status_code == 201
        assert sidecar.client().post("/api/auth/login", json={"code": code}).status_code == 401


class TestActorsAndTop:
    def test_actors_are_listed_and_restarted(self, run: Run) -> None:
        names = {row["name"] for row in json.loads(run("actors", "--format", "json").stdout)["actors"]}
        assert names == {"event_bus", "result_store", "spawner", "context_builder"}
        run("actors", "--restart", "context_builder")
        refused = run("actors", "--restart", "nobody", code=1).stderr
        assert all(name in refused for name in names)

    def test_top_in_a_pipe_is_one_look(self, run: Run, sidecar: Any) -> None:
        sidecar.spawn("go-specialist", "issue-7")
        sidecar.wait_for("agent_started")
        shown = run("top").stdout
        assert "issue-7" in shown
        assert "  1 agent active  " in shown
        assert "  0 results\n" in shown
        assert "event_bus running" in shown
        assert "agent_started" in shown

    def test_top_on_a_terminal_shows_what_comes_until_interrupted(self, sidecar: Any) -> None:
        def spawn_when_shown(shown: str) -> bool:
            if "no agents" in shown and not spawned:
                spawned.append(sidecar.spawn("go-specialist", "issue-7")["agent_id"])
            return bool(spawned) and spawned[0] in shown and "agent_started" in shown

        spawned: list[str] = []
        on_a_terminal(["top", "--interval", "0.2"], sidecar, columns=160, until=spawn_when_shown)
        assert spawned


def on_a_terminal(
    arguments: list[str], sidecar: Any, *, columns: int, until: Callable[[str], bool] | None = None
) -> str:
    """What a command shows on a terminal of that width; interrupted as soon as `until` holds of what it has shown."""
    env = {"SIDECAR_URL": sidecar.url, "JWT_TOKEN": sidecar.operator_token(), "TERM": "xterm", "NO_COLOR": "1"}
    leader, follower = pty.openpty()
    size = {"COLUMNS": str(columns), "LINES": "40"}
    process = subprocess.Popen(
        [*SIDECAR, *arguments], stdin=follower, stdout=follower, stderr=follower, env=os.environ | env | size
    )
    os.close(follower)
    killer = threading.Timer(DEADLINE_S, process.kill)
    killer.start()
    shown = ""
    try:
        while True:
            try:
                data = os.read(leader, 65536)
            except OSError:  # Linux: the other end is closed
                break
            shown += data.decode(errors="replace")
            if until is not None and until(shown):
                process.send_signal(signal.SIGINT)
                until = None
        assert process.wait(timeout=DEADLINE_S) == 0, shown
    finally:
        killer.cancel()
        process.kill()
        process.wait()
        os.close(leader)
    return shown


@pytest.mark.parametrize(
    ("error", "said"), [("MemoryError()", "out of memory"), ("ImportError('no room', name='x')", "no room")]
)
@pytest.mark.parametrize("where", ["sidecar.http.cli.main", "sidecar.http.cli.server"])
def test_a_command_that_cannot_be_loaded_says_so_in_one_line(where: str, error: str, said: str) -> None:
    program = f"""
import sys

class Finder:
    def find_spec(self, name, path, target=None):
        if name == {where!r}:
            raise {error}

sys.meta_path.insert(0, Finder())
sys.argv[1:] = ["status"]
from sidecar.http.cli.command import run
run()
"""
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert (shown.returncode, len(shown.stderr.splitlines())) == (1, 1), shown.stderr
    assert said in shown.stderr
