"""The integrator's page: what it tells for each shape of a cluster, in both languages."""

from __future__ import annotations

import re

import pytest

from orchestrator.checking.bound import script_bounds
from orchestrator.rendering import alerts
from orchestrator.rendering.page import needed_timeout_s, page
from orchestrator.rendering.places import PLACES
from statemachines.alerts import ALERTS
from tests.rendering.conftest import ENGLISH, JAPANESE, SHAPES, Recipe

LANGUAGES = {"en": ENGLISH, "ja": JAPANESE}


def page_of(recipe: Recipe, language: str = "en", **target: bool) -> str:
    wanted = recipe.target(**target)
    return page(recipe.site(wanted), wanted, LANGUAGES[language])


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("shape", SHAPES)
def test_resources_stand_in_their_order_with_their_dependencies(shape: str, language: str) -> None:
    """G22, G40: one script resource on floating IP and disk, one resident application resource for each service on the script."""
    text = page_of(Recipe(shape), language)
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith("| `")]
    depends = {row[0].removeprefix("| "): row[2] for row in rows if len(row) == 4}
    assert list(depends)[-len(SHAPES[shape]) - 1 :] == ["`script-dcsup`", *(f"`appli-{kind}`" for kind in SHAPES[shape])]
    assert depends["`script-dcsup`"] == "`fip1`, `sd1` / `md1`"
    assert {depends[f"`appli-{kind}`"] for kind in SHAPES[shape]} == {"`script-dcsup`"}
    for kind in SHAPES[shape]:
        assert f"`C:\\dcsup\\clusterpro\\watch-{kind}.bat`" in text


@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize("platform", ["windows", "linux"])
def test_page_is_wholly_in_its_language(platform: str, language: str) -> None:
    """No sentence of the Japanese page is left in English; tables have as many cells in each row."""
    text = page_of(Recipe("dbms", platform), language)  # type: ignore[arg-type]
    prose = [line for line in re.sub(r"```.*?```", "", text, flags=re.DOTALL).splitlines() if len(line) > 60 and not line.startswith("| `")]
    assert prose
    for line in prose:
        assert bool(re.search(r"[ぁ-んァ-ヶ一-龠]", line)) == (language == "ja"), line
    table: set[int] = set()
    for line in text.splitlines():
        table = table | {line.count(" | ")} if line.startswith("|") else set()
        assert len(table) <= 1, line


def test_the_sum_is_shown_and_the_timeout_follows_from_it() -> None:
    """NODE.md's bound: its parts, their sum, and values that are greater; act/timeout is 180 s more (CLUSTERPRO.md 1.3)."""
    recipe = Recipe("both")
    text = page_of(recipe)
    for bound in script_bounds(recipe.site().cluster):
        assert f"**{bound.total_s:g}**" in text
        assert bound.total_s < needed_timeout_s(recipe.site())
    assert f"**{needed_timeout_s(recipe.site()):g} s**" in text
    assert f"**{needed_timeout_s(recipe.site()) + 180:g} s** (script timeout + 180 s)" in text


def test_a_timeout_that_is_long_enough_stays_and_a_short_one_is_told() -> None:
    """The configured value is proposed as long as both scripts fit into it."""
    enough = Recipe("server", cluster={"clusterpro": {"script_timeout": "3h"}})
    assert needed_timeout_s(enough.site()) == 10800
    assert "too short" not in page_of(enough)
    short = Recipe("server", cluster={"clusterpro": {"script_timeout": 600}})
    assert needed_timeout_s(short.site()) % 60 == 0
    assert "**dcsup.toml says 600 s, which is too short.**" in page_of(short)
    assert "600 秒では不足" in page_of(short, "ja")


def test_a_stop_is_not_judged_unless_the_site_asked_for_it() -> None:
    """A failed stop shuts the operating system down by default (CLUSTERPRO.md 3.1): the stop's normal return value stays blank."""
    assert "| normal return value, start | `0` |" in page_of(Recipe("server"))
    assert "| normal return value, stop | blank |" in page_of(Recipe("server"))
    asked = page_of(Recipe("server", cluster={"stop": {"report_failure": True}}))
    assert "| normal return value, stop | `0` |" in asked
    assert "shut the operating system down" in asked


def test_monitors_fail_the_group_over() -> None:
    """G22, G40: interval of the watch, no restart in place, recovery target the group."""
    text = page_of(Recipe("both", cluster={"watch": {"interval": 7}}))
    assert "| interval | 7 s |" in text
    assert "| recovery action | failover: reactivation 0, failover 1 |" in text
    assert "| recovery target | the group `failover1` |" in text


def test_exactly_one_script_resource_calls_dcsup() -> None:
    """NODE.md: with a second one each would clear the ground of the other."""
    assert "**Exactly one script resource of the group calls dcsup**" in page_of(Recipe("both"))
    assert "グループに 1 つだけ" in page_of(Recipe("both"), "ja")


@pytest.mark.parametrize(("databases", "expected"), [("local", "must be clustered one-way standby in this group (G2)"),
                                                     ("remote", "connects to no DBMS of its own server (G2)"),
                                                     (None, "say which with `databases`")])  # fmt: skip
def test_an_agents_databases_are_told(databases: str | None, expected: str) -> None:
    """G2: a DBMS on the agent's own server must be in the cluster; where the site did not say, it is asked."""
    agent = {} if databases is None else {"databases": databases}
    assert expected in page_of(Recipe("agent", services={"agent": agent}))
    assert "(G35)" not in page_of(Recipe("agent"))
    assert "(G35)" in page_of(Recipe("both"))


def test_a_fragment_is_pasted_where_the_dbms_is_handled() -> None:
    """G24, G42: the page shows the lines themselves, and where they go."""
    text = page_of(Recipe("agent"), fragment=True)
    assert 'call "C:\\dcsup\\clusterpro\\dcsup-start.bat" || exit /b 1' in text
    assert "before those that stop the DBMS" in text
    assert "what your script itself takes to start or stop the DBMS" in text
    assert "dcsup-start" not in page_of(Recipe("agent"))


def test_alert_lines_are_told_for_every_alert_that_the_core_knows() -> None:
    """Every alert that the core knows is among them, by what it is taken for."""
    assert {alert.category for alert in ALERTS.values()} == {*alerts.WANTED, alerts.INFORMATION}
    text = page_of(Recipe("server", node={"dcsup": ["C:\\Program Files\\dcsup\\dcsup.exe"], "folder": "C:\\my dcsup"}))
    line = '"C:\\Program Files\\dcsup\\dcsup.exe" hook alert --folder "C:\\my dcsup" --module rc --id 60 --text "%%MSG%%"'
    assert line in text.splitlines()
    assert "rc 10, 11, 20, 21" in text
    assert len(line.encode()) < 511  # what the alert extension's box takes


def test_every_place_for_site_code_is_listed() -> None:
    """G43, with its limit."""
    text = page_of(Recipe("server", cluster={"clusterpro": {"site_limit": 90}}))
    for place in PLACES:
        assert f"`{place}.bat`" in text
    assert "90 s (`clusterpro.site_limit`)" in text


def test_the_way_back_and_what_remains_are_told() -> None:
    """The bypass file by its path, `render guide`, and the risk that a hanging plain command is (NODE.md N6)."""
    text = page_of(Recipe("server"))
    assert "`C:\\dcsup\\dcsup.bypass`" in text
    assert "`dcsup render guide --out FOLDER`" in text
    assert "has no time limit, as in the guide" in text


def test_what_was_never_tried_is_marked() -> None:
    """What CLUSTERPRO.md does not call seen carries a mark that sends the reader to the reference guide."""
    text = page_of(Recipe("both"))
    marked = [line for line in text.splitlines() if "[check]" in line]
    assert [any(word in line for line in marked) for word in ("RECOVER", "60 s", "%%MSG%%", "X 4.2", "module and event id")] == [True] * 5


def test_a_cluster_in_mode_observe_is_told_to_keep_the_guides_scripts() -> None:
    """Rendering is allowed before the mode is changed; nobody must take the page for an order."""
    assert "mode `observe`" not in page_of(Recipe("server"))
    assert "mode `observe`" in page_of(Recipe("server", cluster={"mode": "observe"}))
