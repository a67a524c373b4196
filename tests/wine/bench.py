"""A Windows of its own, and cluster nodes in it made of tiny recording stand-ins.

Everything that decides is real: cmd, the rendered batch files, processes, renames, files that are held open. The stand-ins
(standins/*.c, made with mingw when the tests begin) only record their calls, in order, and play dcsup's part of the node protocol with
the fault that a test asks for. Wine runs with a Japanese locale, so that its code page is 932 as on a Japanese Windows.

What Wine's cmd cannot show: code page 65001 for batch files, `%` and `!` in values (which are not rendered anyway), exit codes other
than 0 and 1 through `call other.bat`, how the console's own handles are inherited, and CLUSTERPRO itself.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from deploy.clusterpro import sources

HERE = Path(__file__).resolve().parent
CMD = r"C:\windows\system32\cmd.exe"
LIMIT_S = 120.0
BOOT = "boot1"
GROUP = "group-a"

COMMAND = """\
@echo off
rem NAME VERB: behaves as the files beside it say
"{bin}\\RUN.exe" {name} %1
if defined HALFWAY exit /b 1
:hold
if exist "{state}.hold" "{bin}\\HOLD.exe" 1 & goto :hold
if exist "{state}.fail" exit 3
if "%1"=="start" if not exist "{state}.late" echo. >"{state}.up"
if "%1"=="recover" if not exist "{state}.late" echo. >"{state}.up"
if "%1"=="stop" if not exist "{state}.stubborn" del "{state}.up" 2>nul
if "%1"=="faststop" if not exist "{state}.stubborn" del "{state}.up" 2>nul
>>"{calls}" echo end {name} %1
exit 0
"""

STATUS = """\
@echo off
>>"{calls}" echo status {name}
:mute
if exist "{state}.mute" "{bin}\\HOLD.exe" 1 & goto :mute
if exist "{state}.up" exit 0
if exist "{state}.comes-up" ren "{state}.comes-up" "{name}.up"
exit 7
"""

Value = TypeVar("Value")


def eventually(question: Callable[[], Value | None], limit_s: float = LIMIT_S) -> Value:
    """The first answer that is true; fails when there is none in time."""
    give_up = time.monotonic() + limit_s
    while not (answer := question()):
        assert time.monotonic() < give_up, f"not within {limit_s} s: {question}"
        time.sleep(0.02)
    return answer


def windows_path(path: Path) -> str:
    """The name that Wine has for a path of this machine."""
    return "Z:" + str(path).replace("/", "\\")


def as_rendered(text: str, encoding: str = "cp932") -> bytes:
    """A batch file as it is written for a node."""
    return text.replace("\n", "\r\n").encode(encoding)


def missing_packages() -> list[str]:
    """Debian packages that these tests need and this machine lacks."""
    needed = {
        "wine": shutil.which("wine"), "wine64": Path("/usr/lib/wine/wine64").exists(),
        "gcc-mingw-w64-x86-64": shutil.which("x86_64-w64-mingw32-gcc"), "locales": Path("/usr/share/i18n/locales/ja_JP").exists(),
    }  # fmt: skip
    return [name for name, found in needed.items() if not found]


class Windows:
    """One Wine prefix with its own server, which is kept until `close`."""

    def __init__(self, home: Path) -> None:
        """Make it; takes some seconds.

        Raises:
            subprocess.CalledProcessError: a stand-in cannot be compiled, or Wine cannot make its prefix.
        """
        self.bin = home / "bin"
        self.bin.mkdir(parents=True)
        locales = home / "locales"
        locales.mkdir()
        subprocess.run(["localedef", "-i", "ja_JP", "-f", "UTF-8", str(locales / "ja_JP.UTF-8")], check=True)
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("WINE", "LC_", "LANG", "DISPLAY", "CLP_", "DCSUP"))}
        self.environment = {
            **kept, "WINEPREFIX": str(home / "prefix"), "WINEDEBUG": "-all", "WINEDLLOVERRIDES": "mscoree,mshtml=",
            "LOCPATH": str(locales), "LC_ALL": "ja_JP.UTF-8",
        }  # fmt: skip
        self._compile()
        (home / "prefix").mkdir()
        subprocess.run(["wineserver", "-p"], env=self.environment, check=True, **_QUIET)
        subprocess.run(["wine", "wineboot", "-i"], env=self.environment, check=True, **_QUIET)

    def _compile(self) -> None:
        for name in ("record", "dcsup"):
            command = ["x86_64-w64-mingw32-gcc", "-O1", "-s", "-Wall", "-Wextra", "-Werror", "-municode"]
            subprocess.run([*command, "-o", str(self.bin / f"{name}.exe"), str(HERE / "standins" / f"{name}.c")], check=True)

    def close(self) -> None:
        """End every process of this prefix, and its server."""
        subprocess.run(["wineserver", "-k"], env=self.environment, check=False, **_QUIET)

    def start(self, words: list[str], output: Path, cwd: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
        """A program of Windows; what it writes goes to a file, for a pipe stays open as long as anything lives that it left behind."""
        with output.open("ab") as written:
            return subprocess.Popen(
                ["wine", *words], env={**self.environment, **environment}, cwd=cwd, stdin=subprocess.DEVNULL, stdout=written, stderr=written
            )


_QUIET: dict[str, Any] = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}


class Node:
    """A node's folder, its scripts, its stand-ins and what they recorded."""

    def __init__(self, windows: Windows, home: Path, services: str = "agent server", encoding: str = "cp932", **settings: str) -> None:
        self.windows = windows
        self.home = home
        self.folder, self.scripts, self.bin, self.calls_path = home / "folder", home / "scripts", home / "bin", home / "calls"
        for made in (home, self.scripts, self.bin, self.folder):
            made.mkdir(parents=True)
        (home / "boot").write_text(f"{BOOT}\r\n")
        for name, text in sources("windows").items():
            if "/" not in name:
                (self.scripts / name).write_bytes(as_rendered(text, encoding))
        for name in ("ARMSLEEP", "ARMBCAST", "CLPLOGCMD", "HOLD", "RUN"):
            os.link(windows.bin / "record.exe", self.bin / f"{name}.exe")
        os.link(windows.bin / "dcsup.exe", self.bin / "dcsup.exe")
        self.services = services.split()
        for service in self.services:
            self._make_service(service)
        self.settings: dict[str, str | None] = {**settings}
        self._runs = 0
        self.configure()

    def _make_service(self, name: str) -> None:
        paths = {"calls": self.calls_path, "state": self.home / name, "bin": self.bin}
        words = {"name": name, **{word: windows_path(path) for word, path in paths.items()}}
        (self.bin / f"dc{name}.bat").write_bytes(as_rendered(COMMAND.format(**words)))
        (self.bin / f"dcstatus-{name}.bat").write_bytes(as_rendered(STATUS.format(**words)))

    def configure(self, **settings: str | None) -> None:
        """Write dcsup-env.bat; what is given stays for later calls, None takes back what was given, an empty text leaves the setting out.

        Limits are long: a second of the scripts is a few hundredths here, and this machine may be slow.
        """
        self.settings.update(settings)
        values: dict[str, str | None] = {
            "DCSUP": f'"{windows_path(self.bin / "dcsup.exe")}"', "DCSUP_FOLDER": windows_path(self.folder), "DCSUP_GROUP": GROUP,
            "DCSUP_BOOT_FILE": windows_path(self.home / "boot"), "DCSUP_SERVICES": " ".join(self.services), "DCSUP_LANG": "en",
            "CLP_BIN": windows_path(self.bin), "DCSUP_HOOK_SILENCE": "3000", "DCSUP_START_DEADLINE": "600", "DCSUP_STOP_DEADLINE": "600",
            "DCSUP_INTERVAL": "10", "DCSUP_POLL_LIMIT": "300", "DCSUP_COMMAND_LIMIT": "600", "DCSUP_SITE_LIMIT": "600",
            "DCSUP_BOOT_LIMIT": "300",
        }  # fmt: skip
        for service in self.services:
            values[f"DCSUP_COMMAND_{service}"] = f'"{windows_path(self.bin / f"dc{service}.bat")}"'
            values[f"DCSUP_STATUS_{service}"] = f'"{windows_path(self.bin / f"dcstatus-{service}.bat")}"'
        values |= {key: value for key, value in self.settings.items() if value is not None}
        lines = [f"set {key}={value}" if value.startswith('"') else f'set "{key}={value}"' for key, value in values.items() if value]
        (self.scripts / "dcsup-env.bat").write_bytes(as_rendered("".join(f"{line}\n" for line in lines)))

    def put(self, service: str, *flags: str) -> None:
        """Set what a service does: up, fail, hold, late, stubborn, mute, comes-up."""
        for flag in flags:
            (self.home / f"{service}.{flag}").write_text("")

    def take(self, service: str, *flags: str) -> None:
        """Take back what `put` set, as far as it is there."""
        for flag in flags:
            (self.home / f"{service}.{flag}").unlink(missing_ok=True)

    def place(self, name: str, text: str = "exit 0") -> None:
        """The site's own code at a place (G43), which records that it ran."""
        folder = self.scripts / "site"
        folder.mkdir(exist_ok=True)
        (folder / f"{name}.bat").write_bytes(as_rendered(f'@echo off\n>>"{windows_path(self.calls_path)}" echo site {name}\n{text}\n'))

    def start(self, script: str, *words: str, **environment: str) -> Run:
        """Run a script as CLUSTERPRO does."""
        self._runs += 1
        output = self.home / f"output-{self._runs}"
        variables = {"RECORD": windows_path(self.calls_path), "RECORD_MS": "20", **environment}
        path = windows_path(self.scripts / f"{script}.bat")
        if "&" in path:  # wine itself cannot hand such a path to cmd
            return Run(self.windows.start([CMD, "/d", "/c", f".\\{script}.bat", *words], output, self.scripts, variables), output)
        return Run(self.windows.start([CMD, "/d", "/c", path, *words], output, self.windows.bin, variables), output)

    def run(self, script: str, *words: str, **environment: str) -> tuple[int, str]:
        """Exit code and output of a whole run."""
        return self.start(script, *words, **environment).end()

    def calls(self, *, polls: bool = True) -> list[str]:
        """What was recorded, in order, without the script's own steps of one second.

        Args:
            polls: with every dcstatus, pause, hook and end of a command.
        """
        text = self.calls_path.read_text("utf-8") if self.calls_path.exists() else ""
        lines = [line.strip() for line in text.splitlines()]
        return lines if polls else [line for line in lines if not line.startswith(("status ", "ARMSLEEP|", "DCSUP|", "end "))]

    def steps(self) -> int:
        """How many steps of one second the scripts have waited."""
        steps = self.calls_path.with_name(f"{self.calls_path.name}.steps")
        return steps.read_text("utf-8").count("\n") if steps.exists() else 0

    def runs(self) -> list[str]:
        """The verbs that were run, in order."""
        return [line.removeprefix("run ") for line in self.calls() if line.startswith("run ")]

    def facts(self) -> list[dict[str, str]]:
        """The script's lines in the outbox, in the order of their names."""
        found = sorted((self.folder / "outbox").glob("line-*.line"), key=lambda path: (path.stat().st_mtime_ns, path.name))
        return [fields(path) for path in found]

    def tickets(self) -> list[str]:
        """The tickets on the disk without their boot, group and number: `start.done`."""
        names = (path.name for path in (self.folder / "tickets").iterdir() if path.suffix not in (".alive", ".pulse"))
        return sorted(name.split("-", 4)[4] for name in names)

    def ticket(self, state: str) -> Path | None:
        """The ticket that is in a state which begins so; None: there is none."""
        return next((self.folder / "tickets").glob(f"{BOOT}-*.{state}*"), None)

    def processes(self) -> list[str]:
        """Command lines of what runs with this node's home in it."""
        own, name = os.getpid(), windows_path(self.home)
        lines = [(path.parent.name, _command_line(path)) for path in Path("/proc").glob("[0-9]*/cmdline")]
        return [line for pid, line in lines if name in line and int(pid) != own]


def _command_line(path: Path) -> str:
    try:
        return path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
    except OSError:
        return ""  # it has ended


class Run:
    """A script that is running."""

    def __init__(self, process: subprocess.Popen[bytes], output: Path) -> None:
        self.process = process
        self._output = output

    def end(self) -> tuple[int, str]:
        """Exit code and output."""
        code = self.process.wait(LIMIT_S)
        return code, self._output.read_bytes().decode("cp932", "replace")

    def kill(self) -> None:
        """End the script's own cmd and nothing else, as CLUSTERPRO ends a resident process."""
        self.process.kill()
        self.process.wait(LIMIT_S)


def fields(path: Path) -> dict[str, str]:
    """The `key=value` lines of a file."""
    pairs = (line.partition("=") for line in path.read_text("utf-8", "replace").splitlines())
    return {key: value for key, separator, value in pairs if separator}
