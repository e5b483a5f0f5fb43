"""Which licences are free, and what is read from HTML."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gallery.wikimedia.commons import is_free, plain_text, web_address


@pytest.mark.parametrize(
    "name",
    [
        "CC BY-SA 4.0",
        "CC BY-SA 3.0 de",
        "CC-BY-SA-3.0",
        "CC BY 2.0",
        "CC BY",
        "CC0",
        "CC0 1.0",
        "CC SA 1.0",
        "Public domain",
        "PD-USGov",
        "No restrictions",
        "Attribution",
        "Copyrighted free use",
        "FAL",
        "GFDL 1.2",
        "OGL 3",
        "GODL-India",
        "KOGL Type 1",
        "CC BY-SA 2.5 in",
        "  public   DOMAIN ",
    ],
)
def test_free(name: str) -> None:
    assert is_free(name)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "Fair use",
        "CC BY-NC 2.0",
        "CC BY-NC-SA 4.0",
        "CC BY-ND 4.0",
        "CC-BY-NC-ND-3.0",
        "Creative Commons Attribution-NonCommercial 4.0",
        "All rights reserved",
        "Non-free promotional",
        "Press photo",
        "Public domain unknown",
        "KOGL Type 4",
        "CC BY-SA NC",
        "Permission of the author",
    ],
)
def test_not_free(name: str) -> None:
    assert not is_free(name)


@pytest.mark.parametrize(
    ("html", "text"),
    [
        ('<a href="//commons.wikimedia.org/wiki/User:PtrQs" title="x">PtrQs</a>', "PtrQs"),
        ("1887", "1887"),
        ("a &amp; b<br>c<p>d</p>", "a & b c d"),
        ('<span style="display: none">x <b>y</b></span>z', "z"),
        ("<style>.a{color:red}</style>Ann <i>Lee</i>", "Ann Lee"),
        ('<img src="x"><span style="display:none"><br>n</span>Bo', "Bo"),
        ("Unclosed <b>Jo", "Unclosed Jo"),
        ("a < b", "a < b"),
        ("x" * 2000, "x" * 999 + "…"),
    ],
)
def test_text_of_html(html: str, text: str) -> None:
    assert plain_text(html) == text


@given(st.text())
def test_any_html_has_some_text_on_one_line(html: str) -> None:
    text = plain_text(html, 50)
    assert len(text) <= 50
    assert text == " ".join(text.split())


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("//creativecommons.org/x", "https://creativecommons.org/x"),
        (" http://a.b/c ", "http://a.b/c"),
        ("javascript:alert(1)", None),
        ('https://a.b/"onclick=', None),
        ("", None),
        ("https://a.b/" + "x" * 1000, None),
    ],
)
def test_addresses(text: str, address: str | None) -> None:
    assert web_address(text) == address
