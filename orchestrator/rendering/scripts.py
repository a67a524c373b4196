"""The whole folder of scripts for one node.

The static scripts go in as they are; what is made here is the settings file, one watch script for each service, the places for the site's
own code and, as a fragment, what stands between the site's own script and ours. Batch files get CRLF and the chosen encoding; in UTF-8
those that CLUSTERPRO starts first switch cmd's code page, or it would read the settings file as the system's own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from orchestrator.rendering import Site, Target, Unfit, Words, places
from orchestrator.rendering.quoting import NAMES, batch_command, lacks, settings_file, sh_command
from orchestrator.rendering.variables import variables_of
from orchestrator.said import say

Files = dict[str, bytes]
Texts = dict[str, str]

_CALLED = ("start", "stop")
_ECHO_OFF = re.compile(r"\A@echo off\n", re.IGNORECASE)


def supervised(site: Site, target: Target, sources: Mapping[str, str], words: Words) -> Files:
    """The scripts of mode supervise.

    Args:
        site: with durations in whole seconds (`variables.in_whole_seconds`).
        target: what for; `fragment`: start and stop become `dcsup-start` and `dcsup-stop`, with the lines that call them.
        sources: the platform's static scripts, UTF-8 and LF.
        words: the language of comments.

    Raises:
        Unfit: a setting cannot stand in a script.
    """
    texts = {name: text for name, text in sources.items() if "/" not in name}
    if target.fragment:
        texts = dict(_as_fragment(texts, target)) | dict(_lines_to_paste(site, target, words))
    return _encoded(texts | _made_here(site, target, words), target, site)


def guide(site: Site, target: Target, sources: Mapping[str, str], words: Words) -> Files:
    """The guide's plain sequence and nothing else, for going back; parameters as `supervised`.

    Raises:
        Unfit: a setting cannot stand in a script.
    """
    texts = {name.removeprefix("guide/"): text for name, text in sources.items() if name.startswith("guide/")}
    texts |= {name: text for name, text in sources.items() if name.startswith("messages.")}
    return _encoded(texts | _made_here(site, target, words), target, site)


def _made_here(site: Site, target: Target, words: Words) -> Texts:
    texts = {NAMES[target.platform]: settings_file(variables_of(site, target), target, words)}
    texts |= {f"watch-{service.name}{target.suffix}": watch_script(service.name, target) for service in site.cluster.services}
    for place in places.PLACES:
        texts[f"{places.FOLDER}/{place}{target.suffix}"] = places.empty_place(place, target, words)
    return texts


def watch_script(service: str, target: Target) -> str:
    """The start path of a service's resident application resource (G22). It stays one process, so that killing it ends the watch."""
    if target.platform == "windows":
        return f'@echo off\ncall "%~dp0watch.bat" {service}\nexit /b %ERRORLEVEL%\n'
    return f'#!/bin/sh\ncase $0 in */*) here=${{0%/*}} ;; *) here=. ;; esac\nexec sh "$here/watch.sh" {service}\n'


# --- as lines in scripts that exist already (G24, G42) ---------------------------------------------------------------------------------


def _as_fragment(texts: Texts, target: Target) -> Iterator[tuple[str, str]]:
    """start and stop under names that the site's own do not have."""
    for name, text in texts.items():
        stem = name.removesuffix(target.suffix)
        if stem not in _CALLED:
            yield name, text
        elif target.platform == "windows" and target.encoding == "utf-8":
            yield f"dcsup-{stem}-main{target.suffix}", text
            yield f"dcsup-{stem}{target.suffix}", _keeping_code_page(f"dcsup-{stem}-main{target.suffix}")
        else:
            yield f"dcsup-{name}", text


def _keeping_code_page(script: str) -> str:
    """Calls a script that switches the code page, and switches it back: the caller's own texts are in another."""
    return f"""@echo off
setlocal
set "DCSUP_CODE_PAGE="
for /f "tokens=2 delims=:." %%p in ('chcp') do set "DCSUP_CODE_PAGE=%%p"
call "%~dp0{script}"
set "DCSUP_CODE=%ERRORLEVEL%"
if defined DCSUP_CODE_PAGE chcp %DCSUP_CODE_PAGE% >nul
exit /b %DCSUP_CODE%
"""


def _lines_to_paste(site: Site, target: Target, words: Words) -> Iterator[tuple[str, str]]:
    for script in _CALLED:
        yield f"paste-into-{script}.txt", "\n".join(paste(site, target, script, words)) + "\n"


def paste(site: Site, target: Target, script: str, words: Words) -> list[str]:
    """The lines for the group's script resource: all of it, or, as a fragment, what goes into the one that is there.

    A failed start must reach CLUSTERPRO, or it believes that the group is up. A stop goes on: the DBMS is to be stopped in any case.
    """
    call = _call(site, target, script)
    windows = target.platform == "windows"
    if not target.fragment:
        if windows:
            return ["@echo off", call, "exit /b %ERRORLEVEL%"]
        return ["#!/bin/sh", f"exec {call}"]
    comment = "rem " if windows else "# "
    if script == "start":
        head = say("dcsup: behind the lines that start the DBMS, reached only when it is up (G24). A failed start ends the script.")
        lines = [f"{call} || exit /b 1"] if windows else [f"{call} || exit $?"]
    else:
        head = say("dcsup: before the lines that stop the DBMS (G24). Its code is kept for the end; the DBMS is stopped in any case.")
        lines = [call, "set DCSUP_STOP_CODE=%ERRORLEVEL%"] if windows else [call, "dcsup_stop_code=$?"]
    begin = [comment + head.in_words(words), *lines, comment + say("dcsup: end").in_words(words)]
    if script == "start":
        return begin
    tail = say("dcsup: the script's last line").in_words(words)
    return [*begin, "", comment + tail, "exit /b %DCSUP_STOP_CODE%" if windows else 'exit "$dcsup_stop_code"']


def _call(site: Site, target: Target, script: str) -> str:
    name = f"dcsup-{script}" if target.fragment else script
    path = site.folder(target) + target.separator + name + target.suffix
    return f"call {batch_command([path])}" if target.platform == "windows" else sh_command([path])


# --- bytes -----------------------------------------------------------------------------------------------------------------------------


def _encoded(texts: Mapping[str, str], target: Target, site: Site) -> Files:
    return {name: _bytes(name, text, target, site) for name, text in sorted(texts.items())}


def _bytes(name: str, text: str, target: Target, site: Site) -> bytes:
    if target.platform == "linux":
        return text.encode("utf-8")
    if target.encoding == "utf-8":
        text = _with_code_page(name, text)
    lacking = lacks(text, target.encoding)
    if lacking is not None:  # a text of ours, for settings were looked at before
        where = ("clusters", site.name, "language")
        expected = say("{file} cannot be written in {encoding}: render with --encoding utf-8", file=name, encoding=target.encoding)
        raise Unfit([(where, say("found {value}", value=lacking), expected)])
    return text.replace("\n", "\r\n").encode(target.encoding)


def _with_code_page(name: str, text: str) -> str:
    """A script that CLUSTERPRO starts reads what follows its second line as UTF-8."""
    stem = name.removesuffix(".bat")
    begins = stem in (*_CALLED, "dcsup-start-main", "dcsup-stop-main") or stem.startswith("watch-")
    return _ECHO_OFF.sub("@echo off\nchcp 65001 >nul\n", text) if begins else text
