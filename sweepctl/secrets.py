"""Text without secrets: what is printed, stored or logged goes through here.

Two ways to find a secret. By its form: the password of a URL (also percent-encoded), a parameter
`?password=`, a keyword `password=...` as libpq writes it. By its value: passwords of URLs and
variables called TOKEN, SECRET, KEY or PASSWORD in the environment of this process, wherever they
turn up in a text, for example in an error message of somebody else's library.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import quote, unquote

MASK = "***"
"""What is written in place of a secret."""

_SCHEME = r"[a-z][a-z0-9+.-]*"
_NAMES = (
    r"(?:pass(?:word|wd|phrase)?|pwd|secret|token|credentials?|signature"
    r"|(?:api|access|private|secret)[_-]?key)"
)
# A password may hold "/" and "@" where somebody did not write them as %2F and %40, so it ends at
# the last "@" before the next blank or quote.
_URL = re.compile(rf"({_SCHEME}:/{{1,3}}[^\s:/@?#'\"<>]*):([^\s'\"<>]+)@", re.IGNORECASE)
_WORD_URL = re.compile(rf"({_SCHEME}:/{{1,3}}[^:/@?#]*):(.+)@", re.IGNORECASE | re.DOTALL)
# Tokens of hosting services are written in the place of the user.
_USER_TOKEN = re.compile(r"(https?://)([^\s:/@?#'\"<>]+)@", re.IGNORECASE)
_QUERY = re.compile(rf"([?&;][\w.-]*{_NAMES}=)([^&#;\s'\"<>]+)", re.IGNORECASE)
_COLON, _SLASH, _AT = (rf"%(?:25)*{code}" for code in ("3a", "2f", "40"))
_ENCODED = re.compile(
    rf"({_SCHEME}{_COLON}(?:{_SLASH}){{1,3}}(?:(?!{_COLON}|{_AT})[^\s'\"<>])*{_COLON})"
    rf"([^\s'\"<>]+)(?={_AT})",
    re.IGNORECASE,
)
_ENCODED_QUERY = re.compile(
    rf"((?:%(?:25)*(?:3f|26))[\w.-]*?{_NAMES}%(?:25)*3d)((?:(?!%(?:25)*(?:26|23))[^\s'\"<>&])+)",
    re.IGNORECASE,
)
_KEYWORD = re.compile(
    rf"((?<![?&;\w-])[\w-]*{_NAMES}[\"']?\s*(?:=|:\s)\s*)"
    r"('(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"|[^\s;,]+)",
    re.IGNORECASE,
)
_URLS = (_URL, _QUERY, _ENCODED, _ENCODED_QUERY)

_SECRET_VARIABLE = re.compile(
    r"TOKEN|SECRET|PASSW|PASSPHRASE|CREDENTIAL|(?:API|ACCESS|PRIVATE|LICENSE)_?KEY|_PAT$|_PWD$",
    re.IGNORECASE,
)

SHORTEST = 4
"""Characters of the shortest value that is looked for in texts; shorter ones are in every word."""

_UNMISTAKABLE = 8  # so long a value is also found inside of a longer word


def hidden(text: str, values: Iterable[str] = ()) -> str:
    """A text with every secret replaced by `MASK`: those of a known form, and known values.

    Args:
        text: anything that is printed or stored.
        values: secrets that are known, see `known`.
    """
    text = without_passwords(text)
    text = _KEYWORD.sub(rf"\g<1>{MASK}", text)
    for value in sorted(set(values), key=len, reverse=True):
        for form in {value, quote(value, safe=""), json.dumps(value)[1:-1], repr(value)[1:-1]}:
            if len(form) >= SHORTEST and form in text:
                pattern = re.escape(form)
                if len(form) < _UNMISTAKABLE:
                    pattern = rf"(?<!\w){pattern}(?!\w)"
                text = re.sub(pattern, MASK, text)
    return text


def without_passwords(text: str) -> str:
    """A text without the passwords of its URLs; everything else stays as it is."""
    if "@" in text or "%40" in text or "=" in text or "%3" in text or "%25" in text:
        text = _URL.sub(rf"\g<1>:{MASK}@", text)
        text = _USER_TOKEN.sub(rf"\g<1>{MASK}@", text)
        for pattern in _URLS[1:]:
            text = pattern.sub(rf"\g<1>{MASK}", text)
    return text


def without_passwords_in(value: Any) -> Any:
    """Plain data whose texts, at any depth, are those of `without_passwords`."""
    if isinstance(value, str):
        return without_passwords(value)
    if isinstance(value, Mapping):
        return {key: without_passwords_in(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [without_passwords_in(entry) for entry in value]
    return value


def command_line(words: Sequence[str]) -> tuple[str, ...]:
    """The words of a command line as they may be kept: without a secret in any of them."""
    values = passwords(words)
    # The shell has split the words: a password may hold blanks and quotes.
    return tuple(hidden(_WORD_URL.sub(rf"\g<1>:{MASK}@", word), values) for word in words)


def passwords(words: Iterable[str]) -> frozenset[str]:
    """The secrets that URLs and keywords in some words hold, as written and decoded."""
    found: set[str] = set()
    for word in words:
        for pattern in (_WORD_URL, *_URLS, _KEYWORD):
            for match in pattern.finditer(word):
                given = match[2].strip("'\"")
                found |= {given, unquote(given)}
    return frozenset(found - {"", MASK})


def known(environment: Mapping[str, str], words: Iterable[str] = ()) -> frozenset[str]:
    """The secrets that a process can know: of its environment and of its command line."""
    named = {value for name, value in environment.items() if _SECRET_VARIABLE.search(name)}
    in_urls = passwords(
        value for value in environment.values() if "://" in value or "password" in value.lower()
    )
    return frozenset(named | in_urls | passwords(words))
