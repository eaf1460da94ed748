"""The pages of docs/reference that are written from the code are what the code says now."""

from __future__ import annotations

import pytest

from tests.reference_pages import PAGES, REFERENCE


@pytest.mark.parametrize("name", PAGES)
def test_a_page_is_what_the_code_says(name: str) -> None:
    written = (REFERENCE / name).read_text(encoding="utf-8")
    assert written == PAGES[name](), "write it again: python -m tests.reference_pages"
