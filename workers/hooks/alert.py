"""`hook alert`: CLUSTERPRO's alert extension tells of one of its events (CLUSTERPRO.md, section 6); a fact to disk, and that is all."""

from __future__ import annotations

from workers.hooks import EXIT_FALL_BACK, EXIT_GOOD
from workers.hooks.common import Facts, Options

OPTIONS = ("folder", "module", "id", "text", "boot")


def run(argv: list[str]) -> tuple[int, str]:
    options = Options(argv, OPTIONS)
    data = {"module": options.text("module"), "id": int(options.number("id", 0)), "text": options.optional("text") or ""}
    written = Facts(options.folder(), options.optional("boot"), "alert").write("AlertReceived", data)
    return (EXIT_GOOD, "noted") if written else (EXIT_FALL_BACK, "the fact cannot be written")
