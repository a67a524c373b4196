"""The site's own code (G43): one named place for each branch of the guide's samples.

Each place is a script of its own in `site/`, written once, empty but for a comment that says when it runs, and never written again:
what a site puts there is the site's.
"""

from __future__ import annotations

from orchestrator.rendering import Target, Words
from orchestrator.said import Said, say

FOLDER = "site"

PLACES: dict[str, Said] = {
    "start-normal-home": say("After a normal start (CLP_EVENT=START), on the node with the highest priority: business processing."),
    "start-normal-other": say("After a normal start (CLP_EVENT=START), on any other node: business processing."),
    "start-failover-home": say(
        "After a start by failover (CLP_EVENT=FAILOVER), on the node with the highest priority: recovery processing."
    ),
    "start-failover-other": say("After a start by failover (CLP_EVENT=FAILOVER), on any other node: recovery processing."),
    "recover": say("When this node has returned to the cluster (CLP_EVENT=RECOVER). The group runs elsewhere: start nothing here."),
    "before-stop": say("Before the services are stopped. CLP_EVENT tells how they had been started, CLP_FACTOR why they are stopped."),
    "after-stop": say("After the services were stopped. CLP_EVENT tells how they had been started, CLP_FACTOR why they are stopped."),
}
"""Place -> when its code runs. `-home` and `-other` as CLP_SERVER says (G21)."""


def empty_place(place: str, target: Target, words: Words) -> str:
    """The text of a place where nothing happens yet."""
    sentences = [
        say("The site's own code (G43). dcsup writes this file once and never again: it is yours."),
        PLACES[place],
        say("It may take clusterpro.site_limit (dcsup.toml); that it fails is written to the cluster log and changes nothing else."),
    ]
    comment, first, last = ("rem ", ["@echo off"], ["exit /b 0"]) if target.platform == "windows" else ("# ", ["#!/bin/sh"], [])
    return "\n".join([*first, *(comment + said.in_words(words) for said in sentences), *last]) + "\n"
