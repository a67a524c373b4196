"""Sentences of others that the catalogue must know too: the core's, which may not know of languages, and argparse's."""

from __future__ import annotations

from workers.messages import mark

CORE = (
    mark("two services are called '{name}'"),
    mark("an agent on the server's machine is started before the server (G23): put it first"),
    mark("two nodes are called '{name}'"),
    mark("'{one}' is a prefix of '{other}', so Redis access rules cannot tell them apart"),
    mark("cluster '{cluster}' has no [clusters.{cluster}] table"),
    mark("'{name}' is not among the nodes of cluster '{cluster}'"),
    mark("there is no [node.services.{service}] table, though the cluster has that service"),
    mark("cluster '{cluster}' has no service '{service}'"),
    mark("a service of kind 'command' is started with its start command and stopped with its stop command"),
    mark("only an agent connects to databases (G2)"),
    mark("two endpoints are called '{name}'"),
    mark("there is no service '{service}'"),
    mark("there is no node '{name}'"),
    mark("a service of kind '{kind}' needs '{key}'"),
    mark("a service of kind '{kind}' has no '{key}'"),
    mark("set one of url (a Redis of your own), sentinels (that know where it is) or embedded (a folder), and only one"),
    mark("an address such as redis://host:6379/0, rediss://... (TLS) or unix:///path/of/socket"),
    mark("a host and its port, such as sentinel1:26379 or [fe80::1]:26379"),
    mark("Sentinels know masters by name: set sentinel_master"),
    mark("it belongs to sentinels, and there are none"),
    mark("the embedded Redis knows no users: only this machine's user can reach it"),
    mark("set either {before}password_file or {before}password_env, and not both"),
    mark("a user has a password: set {before}password_file"),
    mark("url holds a password already: take it out there"),
    mark("url names a user already: take it out there"),
    mark("it is for TLS: write url as rediss://..., or tls = true beside sentinels"),
    mark("a key needs its certificate: set cert_file"),
    mark("a name is 1 to 32 of a-z, 0-9 and '-', not beginning or ending with '-'"),
    mark('a duration is a text like "10s", "500ms" or "2m", or a number of seconds'),
    mark("a duration is not negative"),
    mark("set either file or env (an environment variable's name), and not both"),
    mark("set either token_file or token_env, and not both"),
    mark("open means that no token is asked for: leave one of them out"),
    mark("there is no cluster '{name}'"),
    mark("there is no key in it"),
    mark("a key has at least 32 characters"),
    mark("the hash does not match: this entry or one before it was changed, or entries are missing"),
    mark("the line does not end with its hash: it was cut off or is not an exported event"),
)
"""statemachines/addresses.py, configuration.py, durations.py, entries.py."""

ARGPARSE = (
    mark("usage: "),
    mark("options"),
    mark("positional arguments"),
    mark("show this help message and exit"),
    mark("%(prog)s: error: %(message)s\n"),
    mark("the following arguments are required: %s"),
    mark("unrecognized arguments: %s"),
    mark("argument %(argument_name)s: %(message)s"),
    mark("invalid choice: %(value)r (choose from %(choices)s)"),
    mark("invalid %(type)s value: %(value)r"),
    mark("expected one argument"),
)
