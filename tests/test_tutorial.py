"""What the docs tell people to type works word for word: the README's tour, the tutorial and every how-to."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.pages import Reader, blocks_of, environment_for, form_of, free_port, headings, says, section

ROOT = Path(__file__).parent.parent
TUTORIAL = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
HOW_TO = (ROOT / "docs" / "how-to.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")

Follow = Callable[[str], None]

# Several dozen commands, each a process: 15 s on two idle cores.
pytestmark = pytest.mark.timeout(400)


def any_run(markdown: str) -> bool:
    return any(block.is_run and block.language == "sh" for block in blocks_of(markdown))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Where the newcomer begins: an empty directory, and a repository of their own in it."""
    directory = tmp_path / "src"
    own = directory / "YOUR-PROJECT"
    own.mkdir(parents=True)
    (own / "app.py").write_text("def answer():\n    return 42\n")
    git = ["git", "-c", "user.name=Ada", "-c", "user.email=ada@example.org", "-C", str(own)]
    subprocess.run([*git, "init", "-q", "-b", "main"], check=True)
    subprocess.run([*git, "add", "."], check=True)
    subprocess.run([*git, "commit", "-q", "-m", "Begin"], check=True)
    return directory


@pytest.fixture
def follow(tmp_path: Path, place: Path) -> Iterator[Follow]:
    """Does everything that a page says; the terminals, and a server in one of them, end with the test."""
    port = free_port()
    reader = Reader(place, environment_for(tmp_path / "home", port), port)
    with ExitStack() as stack:
        stack.callback(reader.close)

        def whole(markdown: str) -> None:
            done = list(reader.follow(markdown))
            assert done, "nothing of it was run"

        yield whole


def test_the_tour_of_the_readme_works_as_it_is_written(follow: Follow) -> None:
    follow(section(README, "## In your own project"))


def test_the_tutorial_works_as_it_is_written(follow: Follow, place: Path) -> None:
    follow(TUTORIAL)
    assert (place / "shop" / "FUNCTIONS.md").exists()


GO = "```sh\ncd YOUR-PROJECT\n```\n\n<!-- terminal: server -->\n```sh\ncd YOUR-PROJECT\n```\n"
SERVE = "<!-- terminal: server -->\n```sh\nsidecar serve\n```\n\n```text\n…\nsidecar listens on http://127.0.0.1:3001\n```\n"


@pytest.mark.parametrize("heading", [each for each in headings(HOW_TO) if any_run(section(HOW_TO, each))])
def test_every_how_to_works_as_it_is_written(follow: Follow, heading: str) -> None:
    text = section(HOW_TO, heading)
    first = next(block for block in blocks_of(text) if block.is_run and (block.language == "sh"))
    # As the page says: a server runs already, except where the section starts it itself.
    starts_itself = any(block.saved_as == "sidecar.toml" for block in blocks_of(text)) or first.terminal == "server"
    follow(GO + ("" if starts_itself else SERVE) + text)


@pytest.mark.soak
@pytest.mark.timeout(1700)
def test_the_tutorial_begins_with_a_clone_that_installs_itself(
    tmp_path: Path, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The one block that takes a minute and the network; the tests above have `sidecar` on the PATH instead."""
    (first,) = [block for block in blocks_of(TUTORIAL) if "git clone" in block.text]
    port = free_port()
    environment = environment_for(tmp_path / "home", port) | {"REPOSITORY": str(ROOT)}
    (tmp_path / "home" / ".local" / "bin" / "sidecar").unlink()
    monkeypatch.setattr("tests.pages.DEADLINE_S", 900.0)
    reader = Reader(place, environment, port)
    with ExitStack() as stack:
        stack.callback(reader.close)
        which = f"```sh\n{first.text}command -v sidecar\n```\n```text\n…\n{place}/sidecar/.venv/bin/sidecar\n```\n"
        assert len(list(reader.follow(which + TUTORIAL))) > 2


class TestAPage:
    """The rules of tests/pages.py, without which the tests above would say nothing."""

    @pytest.mark.parametrize(
        ("claimed", "printed"),
        [
            ("agent  shop-1f0c22aa  running  1234", "agent   shop-00000000   running   77123"),
            ("took 0.4 s, 12 MB", "took 21.7 s, 103 MB"),
            ("12:00:01  evt-0000000000000004 done", "23:59:59 evt-0000000000000911   done"),
            ("…\nlast", "first\nsecond\nlast"),
            ("begins with…", "begins with whatever"),
            ("…: 3 files…", "/tmp/x (y): 3 files, packed"),
        ],
    )
    def test_says_what_is_printed_but_for_ids_times_and_sizes(self, claimed: str, printed: str) -> None:
        assert says(claimed.splitlines(), printed.splitlines())

    @pytest.mark.parametrize(
        ("claimed", "printed"),
        [
            ("state  completed", "state  failed"),
            ("incarnation 2, 1 restart", "incarnation 1, 0 restarts"),
            ("one line", "one line\nand another"),
            ("one line\nand another", "one line"),
            ("…\nlast", "last\nand one more"),
        ],
    )
    def test_says_nothing_else(self, claimed: str, printed: str) -> None:
        assert not says(claimed.splitlines(), printed.splitlines())

    def test_is_wrong_when_a_command_fails_or_prints_something_else(self, follow: Follow) -> None:
        with pytest.raises(AssertionError, match=r"(?s)line 1.*'false' failed"):
            follow("```sh\nfalse\ntrue\n```\n")
        with pytest.raises(AssertionError, match="the page claims:\nyes\nand this was printed:\nno"):
            follow("```sh\necho no\n```\n\n```text\nyes\n```\n")

    def test_saves_files_and_keeps_variables_and_the_directory(self, follow: Follow) -> None:
        follow(
            "Save this as `a/b.txt`:\n\n```toml\nport = 3001 $HOME\n```\n\n```sh\nN=1; cd a\n```\n\n"
            "```sh\necho $N; cat b.txt\n```\n\n```text\n1\nport = 3001 $HOME\n```\n"
        )

    def test_forms_leave_small_numbers_and_words_alone(self) -> None:
        assert form_of("incarnation  2, 1 restart of issue-12") == "incarnation 2, 1 restart of issue-12"
