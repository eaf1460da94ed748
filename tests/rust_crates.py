"""Builds agents in Rust from Debian's crates, without a network; skips with the reason where that is not possible."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

REGISTRY = Path("/usr/share/cargo/registry")  # where Debian's librust-*-dev packages put the crates
BUILT_WITHIN_S = 300.0  # 30 s on two idle cores, nearly all of it for crates

# What the guide's agent uses.
CRATES = {
    "anyhow": '"1"',
    "env_logger": '{ version = ">=0.9", default-features = false }',  # without colours and patterns: 2 s less to build
    "log": '"0.4"',
    "reqwest": '{ version = ">=0.11", default-features = false, features = ["json"] }',
    "serde": '{ version = "1", features = ["derive"] }',
    "serde_json": '"1"',
    "tokio": '{ version = "1", features = ["macros", "rt-multi-thread"] }',
}

_DEBIAN = ('source.crates-io.replace-with="debian"', f'source.debian.directory="{REGISTRY}"')


def crate_of(name: str, code: str, place: Path) -> None:
    """A folder with a crate of one file, which may use the CRATES."""
    crate = place / name
    crate.mkdir()
    (crate / "main.rs").write_text(code, encoding="utf-8")
    wanted = "\n".join(f"{used} = {version}" for used, version in CRATES.items())
    (crate / "Cargo.toml").write_text(
        f'[package]\nname = "{name}"\nversion = "0.1.0"\nedition = "2021"\n\n'
        f'[[bin]]\nname = "{name}"\npath = "main.rs"\n\n[dependencies]\n{wanted}\n',
        encoding="utf-8",
    )


def build(place: Path) -> Path:
    """Build every crate of a folder, as one workspace: what they share is compiled once. Returns where programs lie."""
    members = ", ".join(f'"{manifest.parent.name}"' for manifest in sorted(place.glob("*/Cargo.toml")))
    (place / "Cargo.toml").write_text(f'[workspace]\nresolver = "2"\nmembers = [{members}]\n')
    target = place / "target"
    built = subprocess.run(
        ["cargo", "build", "--workspace", "--offline", "--quiet", *(f"--config={each}" for each in _DEBIAN)],
        cwd=place,
        env=os.environ | {"CARGO_TARGET_DIR": str(target), "CARGO_PROFILE_DEV_DEBUG": "0", "CARGO_INCREMENTAL": "0"},
        capture_output=True,
        text=True,
        timeout=BUILT_WITHIN_S,
        check=False,
    )
    assert built.returncode == 0, built.stderr
    return target / "debug"


def skip_without_rust() -> None:
    """Skip the test where there is no cargo, or no crates for it."""
    if shutil.which("cargo") is None:
        pytest.skip("cargo is not installed: agents in Rust are not built")
    missing = [name for name in CRATES if not list(REGISTRY.glob(f"{name}-[0-9]*"))]
    if missing:
        pytest.skip(f"crates are not in {REGISTRY}: {', '.join(missing)}; `make crates` says how to get them")
