"""The scripts that CLUSTERPRO runs, modelled: start.sh, stop.sh and watch.sh of deploy/clusterpro/linux on the model of their
libraries (shell.py), and the guide's own samples, for mode observe.
"""

from __future__ import annotations

from math import isinf

from tests.simulation.shell import VERBS, Call, Env, Exit, Host, Shell


class StartScript(Shell):
    """start.sh"""

    script = "start"

    def main(self) -> int:
        self._make_folders(self.tickets, self.journal, self.outbox)
        self.boot = self.host.find_boot()
        self.began = self.now_s()
        if self.call.event == "RECOVER":
            self.decline("recover", 0)
        if self.call.event not in ("START", "FAILOVER"):
            self.decline("cluster-not-running", 1)
        self.clear_ground()
        if self.call.disk == "FAILURE":
            self.decline("disk-failure", 1)
        self.list_commands()
        self.ask_dcsup(self.env.start_deadline)
        result = self.hook_code if self.hook_code in (0, 40) else self._without_dcsup()
        self.close_ticket(result)
        return result

    def _without_dcsup(self) -> int:
        return self.plain_start() if self.fall_back() else 40

    def wait_healthy(self, service: str, *, now: bool = False) -> bool:
        if now:
            if self.ask_status(service):
                return True
            if self.now_s() >= self.began + self.env.start_deadline:
                return False
        pause = self.env.wait.get(service) or (20 if self.env.kinds[service] == "server" else 10)
        while True:
            self.keep_alive()
            self.rest(pause)
            if self.ask_status(service):
                return True
            left = self.began + self.env.start_deadline - self.now_s()
            if left <= 0:
                return False
            pause = min(pause, left)

    def start_one(self, n: int) -> bool:
        if not self.take_ticket():
            return False
        service, _ = self.commands[n - 1]
        self.keep_alive()
        entry = self.journal_of(self.ticket, n)
        if entry == "ok":
            return self.wait_healthy(service, now=True)
        if entry == "fail":
            return False
        if self.ask_status(service):
            self.note_healthy(n)
            return True
        return self.run_plain(n) and self.code == 0 and self.wait_healthy(service)

    def plain_start(self) -> int:
        return 0 if all(self.start_one(n) for n in range(1, len(self.commands) + 1)) else 40


class StopScript(Shell):
    """stop.sh"""

    script = "stop"
    code_interrupted = 0

    def main(self) -> int:
        self._make_folders(self.tickets, self.journal, self.outbox)
        self.boot = self.host.find_boot()
        self.began = self.now_s()
        if self.call.event not in ("START", "FAILOVER"):
            self.decline("cluster-not-running", 0)
        self.clear_ground()
        if self.call.disk == "FAILURE":
            self.decline("disk-failure", 0)
        self.list_commands()
        self.ask_dcsup(self.env.stop_deadline)
        if self.hook_code == 0:
            result = 0
        elif self.hook_code == 40:
            result = self.judge()
        else:
            result = self.plain_stop() if self.fall_back() else 0
        self.close_ticket(result)
        return result

    def stop_one(self, n: int) -> bool:
        if not self.take_ticket():
            return False
        self.keep_alive()
        return self.journal_of(self.ticket, n) in ("ok", "fail") or self.run_plain(n)

    def is_left_running(self, service: str) -> bool:
        while self.ask_status(service):
            if self.now_s() >= self.began + self.env.stop_deadline:
                return True
            self.keep_alive()
            self.rest(1)
        return False

    def judge(self) -> int:
        return int(self.env.report_failure and any(self.is_left_running(service) for service, _ in self.commands))

    def plain_stop(self) -> int:
        return self.judge() if all(self.stop_one(n) for n in range(1, len(self.commands) + 1)) else 0


class WatchScript(Shell):
    """watch.sh SERVICE"""

    script = "watch"
    code_interrupted = 143

    def __init__(self, host: Host, env: Env, service: str) -> None:
        super().__init__(host, env, Call())
        self.service = service
        self.watch_folder = env.folder / "watch"

    def main(self) -> int:
        self._make_folders(self.watch_folder, self.outbox)
        self.boot = self.host.find_boot()
        if self.boot and not (self.env.folder / "dcsup.bypass").exists():
            self.watch_by_hook()
        return self.plain_watch()

    def plain_watch(self) -> int:
        while True:
            self.ask_status(self.service)
            if self.code != 0 and self.ended_by != 9:
                return self.code
            self.rest(self.env.interval)

    def watch_by_hook(self) -> None:
        env, code_path, sign = self.env, self.watch_folder / f"{self.service}.code", self.watch_folder / f"{self.service}.hook"
        self._remove(code_path)
        self._remove(sign)
        hook = self.host.start_hook(
            ["watch", "--folder", str(env.folder), "--service", self.service, "--boot", self.boot, "--interval", f"{env.interval}",
             "--poll-limit", f"{env.poll_limit}", "--confirm", f"{env.confirm}", "--parent", f"{self.pid}", "--", "dcstatus", self.service]
        )  # fmt: skip
        if hook is None:
            return
        self.guard_hook(hook, sign, 0)
        if self.code != 40:
            return
        status = self._first_line(code_path)
        if not status.isdigit():
            return
        raise Exit(int(status) % 256 or 1)


class GuideScript:
    """The guide's own samples, for mode observe: dcsup is not in them, and nothing is written down."""

    def __init__(self, host: Host, env: Env, call: Call, kind: str, service: str = "") -> None:
        self.host, self.env, self.call, self.kind, self.service = host, env, call, kind, service

    def run(self) -> int:
        if self.kind == "watch":
            return self._watch()
        if self.call.event not in ("START", "FAILOVER") or self.call.disk == "FAILURE":
            return int(self.kind == "start" and self.call.event != "RECOVER")
        for service in self.env.services if self.kind == "start" else self.env.services[::-1]:
            kind = self.env.kinds[service]
            verb = self.kind if kind == "command" else VERBS[f"{kind}.{self.kind}.{self.call.event}"]
            code = self.host.services.run_verb(service, verb, None, 0, "script")
            if self.kind == "start" and (code or not self._is_up(service)):
                return 40
        return 0

    def _is_up(self, service: str) -> bool:
        """The guide polls without limit; this site's copy of it does not."""
        until_s = self.host.kernel.now_s + self.env.start_deadline
        while self.host.kernel.now_s < until_s:
            self.host.kernel.sleep(self.env.wait.get(service) or 10)
            if self._ask(service) == 0:
                return True
        return False

    def _ask(self, service: str) -> int:
        """The guide waits as long as dcstatus hangs: until what made it hang is over."""
        try:
            while isinf((answer := self.host.services.run(["dcstatus", service]))[0]):
                self.host.kernel.sleep(10)
        except OSError:
            return 127
        self.host.kernel.sleep(answer[0])
        return answer[1]

    def _watch(self) -> int:
        while (code := self._ask(self.service)) == 0:
            self.host.kernel.sleep(self.env.interval)
        return code
