"""What people read, in their language.

Sentences for a person on a node or at the console are written in English in the code and looked up in one gettext catalogue,
`workers/locale/<language>/LC_MESSAGES/dcsup.mo`. Logs and events stay English: they are searched, and sent to colleagues.

Standard library only, and nothing is read before the first sentence: hooks import this module and must start fast. A catalogue
that is missing or broken costs the translation, never the sentence.

After a sentence was added or changed (tests/cli/test_catalogue.py tells what is missing):

    pybabel extract -k say -k mark -o build/dcsup.pot orchestrator workers
    pybabel update -D dcsup -i build/dcsup.pot -d workers/locale
    pybabel compile -D dcsup -d workers/locale
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

DOMAIN = "dcsup"
FOLDER = Path(__file__).parent / "locale"
_VARIABLES = ("DCSUP_LANG", "LC_ALL", "LC_MESSAGES", "LANG")


def language() -> str:
    """The first of DCSUP_LANG, LC_ALL, LC_MESSAGES and LANG that is set, as `ja`; `en` without any."""
    value = next((os.environ[name] for name in _VARIABLES if os.environ.get(name)), "en")
    code = value[:2].lower()
    return code if len(code) == 2 and code.isascii() and code.isalpha() and value[2:3] in ("", "_", "-", ".", "@") else "en"


def translate(text: str) -> str:
    """The sentence in the reader's language, or as it is."""
    return _catalogue(language())(text)


_ = translate


def in_language(code: str) -> Callable[[str], str]:
    """Puts sentences into one language, whatever the reader's is: for what is written in several, such as pages for print."""
    return _catalogue(code)


def mark(text: str) -> str:
    """Marks a sentence for the catalogue that is translated where it is shown."""
    return text


@cache
def _catalogue(code: str) -> Callable[[str], str]:
    if code == "en":
        return mark
    import gettext

    try:
        with (FOLDER / code / "LC_MESSAGES" / f"{DOMAIN}.mo").open("rb") as file:
            return gettext.GNUTranslations(file).gettext
    except Exception:  # whatever is wrong with a catalogue: English is better than nothing
        return mark
