"""The texts: complete in both languages, nothing left over, and fit for a console of code page 932."""

from __future__ import annotations

import re
from collections.abc import Iterator
from string import Formatter
from typing import Any, get_args

import pytest

from orchestrator.runbooks import places, steps
from orchestrator.runbooks.plans import plan
from orchestrator.runbooks.wording import LANGUAGES, texts, word
from tests.runbooks.support import EVERY, shape_of, steps_of


def flat(table: dict[str, Any], path: str = "") -> Iterator[tuple[str, str]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from flat(value, f"{path}{key}/")
        else:
            yield path + key, value


ENGLISH, JAPANESE = (dict(flat(texts(language))) for language in LANGUAGES)


def fields(text: str) -> set[str]:
    return {name for _literal, name, _format, _conversion in Formatter().parse(text) if name}


def test_both_languages_say_the_same_things() -> None:
    """The same keys, none empty, with the same values filled in; the Japanese ones are Japanese."""
    assert set(ENGLISH) == set(JAPANESE)
    for key, english in ENGLISH.items():
        assert english.strip()
        assert fields(english) == fields(JAPANESE[key]), key
        if key != "words/blank":
            assert re.search(r"[ぁ-んァ-ヶ一-龠]", JAPANESE[key]), key


def test_a_console_of_code_page_932_can_show_every_text() -> None:
    """No character needs a stand-in there."""
    for text in (*ENGLISH.values(), *JAPANESE.values()):
        text.encode("cp932")


def test_every_step_has_a_text_and_every_text_a_step() -> None:
    """Over all runbooks, shapes and both kinds of drill; likewise settings, verifications and values."""
    every = [step for name, services, standbys in EVERY for step in steps_of(name, services, standbys)]
    every += plan("drill", shape_of("both"), "failure")
    said = texts("en")
    assert {step.kind for step in every} == set(said["steps"])
    assert {part for step in every for part in step.parts} == set(said["parts"]) == set(steps.PARTS)
    kinds = {step.verification.kind for step in every if step.verification}
    assert kinds == set(said["checks"]) == set(get_args(steps.Kind))
    assert set(said["values"]) == set(places.NAMES)


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(("name", "services", "standbys"), EVERY)
def test_every_field_is_filled_in(name: str, services: str, standbys: int, language: str) -> None:
    """With all values given nothing stays open; without any, an open one is shown by the name under which it can be given."""
    shape = shape_of(services, standbys)
    values = {name: f"<<{name}>>" for name in places.NAMES}
    for step in steps_of(name, services, standbys):
        whole = word(step, shape, {**values, "command": "dcsup move"}, language)
        assert not re.search(r"(?<!<)<[a-z_]+>(?!>)|[{}]", f"{whole.title}{whole.text}{whole.why}"), step.id
        bare = word(step, shape, {"command": "dcsup move"}, language)
        assert set(re.findall(r"<(\w+)>", f"{bare.title}{bare.text}{bare.why}")) <= set(places.NAMES)


def test_a_value_with_braces_is_only_a_value() -> None:
    """What a site gives is filled in, never filled in again."""
    step = steps_of("install-server", "server")[0]
    assert "{group}" in word(step, shape_of("server"), {"disk": "{group}"}, "en").text


def test_an_unknown_language_is_english() -> None:
    """As everywhere in dcsup."""
    assert texts("xx") == texts("en")
