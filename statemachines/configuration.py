"""What a site may set: the models behind dcsup.toml.

`[clusters.<name>]` says how a cluster is supervised; it is the orchestrator's and goes into the log, because decisions depend on
it. `[node]` says where things are on one machine (paths, commands); it never leaves that machine. `[redis]` and
`[orchestrator]` are how a process is run. Reading the file, and saying on which line a mistake is, is orchestrator/settings.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from statemachines import addresses, wire
from statemachines.durations import Seconds


class Clash(NamedTuple):
    """Two settings that do not go together: where (below the table that noticed it), and a text with named values to fill in."""

    where: tuple[str | int, ...]
    text: str
    values: dict[str, Any]

    def __str__(self) -> str:
        place = ".".join(map(str, self.where))
        return f"{place}: {self.text.format(**self.values)}" if place else self.text.format(**self.values)


class Inconsistent(ValueError):
    """Every clash of a table at once; carries them apart, so that a reader of the file can tell each one's line."""

    def __init__(self, clashes: list[Clash]) -> None:
        super().__init__("; ".join(map(str, clashes)))
        self.clashes = clashes


def _refuse(clashes: list[Clash]) -> None:
    if clashes:
        raise Inconsistent(clashes)


def _name(value: str) -> str:
    if not wire.NAME.fullmatch(value):
        raise ValueError("a name is 1 to 32 of a-z, 0-9 and '-', not beginning or ending with '-'")
    return value


Name = Annotated[str, AfterValidator(_name)]
Argv = Annotated[list[str], Field(min_length=1)]
Positive = Annotated[Seconds, Field(gt=0)]
Verb = Literal["start", "recover", "stop", "faststop"]
Mode = Literal["observe", "supervise"]


class Section(BaseModel):
    """A table of dcsup.toml: unknown keys are mistakes, values do not change after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class SecretSettings(Section):
    """Where a secret is: in a file, or in an environment variable. The secret itself never stands in dcsup.toml."""

    file: Annotated[str, Field(min_length=1)] | None = None
    env: Annotated[str, Field(min_length=1)] | None = None
    """Name of the variable."""

    @model_validator(mode="after")
    def _one(self) -> SecretSettings:
        if (self.file is None) == (self.env is None):
            _refuse([Clash((), "set either file or env (an environment variable's name), and not both", {})])
        return self


class VerbSettings(Section):
    """Other verbs than G8-G15 instruct, as far as the guide allows them; None: the guide's. Of an agent or a server only."""

    start: Literal["start", "recover"] | None = None
    """With CLP_EVENT=START."""
    start_after_failover: Literal["start", "recover"] | None = None
    """With CLP_EVENT=FAILOVER."""
    stop: Literal["stop", "faststop"] | None = None
    """Of an instance that was started with CLP_EVENT=START."""
    stop_after_failover: Literal["stop", "faststop"] | None = None
    """Of an instance that was started with CLP_EVENT=FAILOVER."""


class ServiceSettings(Section):
    """One DataCoordinator service of the group. The list's order is the start order (G23); a stop runs in reverse."""

    name: Name
    kind: Literal["agent", "server", "command"]
    """`command`: anything else whose start and stop belong to the same place, as a DBMS instance or, where a site asks for it, the
    metadata DB (G24, G44). It has a start, a stop and a status command of its own on each node and knows the verbs start and stop."""
    schedules: bool | None = None
    """Whether the schedules are judged after this service came up; default: for a server, yes."""
    verbs: VerbSettings = VerbSettings()
    databases: Literal["local", "remote"] | None = None
    """For an agent (G2): `local` if even one DBMS that it connects to is on the agent's own server; None: the site did not say."""
    wait: Positive | None = None
    """Seconds that the plain sequence waits before each poll of a start (G20); None: 20 for a server, 10 for anything else."""
    log_id: Annotated[int, Field(ge=1, le=10000)] | None = None
    """Id of its lines in the cluster log (G19); None: 1 for a server, 2 for an agent, 3 for a command."""

    @property
    def owns_schedules(self) -> bool:
        return self.kind == "server" if self.schedules is None else self.schedules


class WatchSettings(Section):
    """How `dcstatus` is polled (G20, G22). `profile = "fast"` is for sites that know that an early 0 is true and cheap."""

    profile: Literal["normal", "fast"] = "normal"
    interval: Positive = 10.0
    first_check_after: Seconds | None = None
    startup_interval: Positive | None = None
    verify_confirm: Annotated[int, Field(ge=1, le=20)] | None = None
    confirm: Annotated[int, Field(ge=1, le=20)] = 1
    poll_limit: Positive = 30.0
    unknown_confirm: Annotated[int, Field(ge=1)] | None = None
    """How many polls in a row without an answer count as one failed poll; None: never (the guide would only wait)."""

    @property
    def first_check_after_s(self) -> float:
        if self.first_check_after is not None:
            return self.first_check_after
        return 0.1 if self.profile == "fast" else 1.0

    @property
    def startup_interval_s(self) -> float | None:
        """Seconds between polls while a service comes up; None: twice the last poll's own time, at least 1 s."""
        if self.startup_interval is not None:
            return self.startup_interval
        return 0.1 if self.profile == "fast" else None

    @property
    def verify_confirm_polls(self) -> int:
        if self.verify_confirm is not None:
            return self.verify_confirm
        return 1 if self.profile == "fast" else 2


class ScriptSettings(Section):
    """Limits of one kind of script call."""

    command_limit: Positive = 300.0
    """After this a command is ended with everything that it started and counts as failed."""
    deadline: Positive = 600.0
    """After this a call that has not reached its end state is given up."""


class StopSettings(ScriptSettings):
    report_failure: bool = False
    """A stop that is proved to have failed returns non-zero; CLUSTERPRO's default then is to shut the OS down."""


class ScheduleSettings(Section):
    after_death: Literal["G4"] = "G4"
    """G7: which rule is assumed where nothing was stopped because node or process died."""
    probe_interval: Positive = 60.0
    settle: Seconds = 2.0
    """How long after the verification an observation must be taken to count."""
    deadline: Positive = 60.0
    """How long after the verification the last observation decides."""
    probe: Literal["command", "none"] = "command"
    """`none` says on purpose that this site cannot list its schedules: outcomes are `unknown`."""


class MetadataSettings(Section):
    """The metadata DB server: watched and shown, never started or stopped (G44). A site that wants it to be has a `command` service."""

    service: str = "DataCoordinatorRA Meta DB server"
    """Name of the operating system's service (G33)."""
    port: Annotated[int, Field(ge=1, le=65535)] = 22103
    """G31."""


class EndpointSettings(Section):
    """An address as a client sees it: floating IP and port of the server or of an agent (G28, G36). Probed from the orchestrator."""

    name: Name
    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)]
    service: Name | None = None
    """The service behind it, if it is one of this cluster's."""
    interval: Positive = 1.0
    limit: Positive = 2.0
    """A connection that is not made within this time counts as refused."""


class ClusterproSettings(Section):
    """What CLUSTERPRO itself is set to, as far as the scripts must fit into it."""

    script_timeout: Positive = 1800.0
    """Of the script resource; a script must return within it in any case (NODE.md, the bound)."""
    site_limit: Positive = 60.0
    """How long one piece of the site's own code may take (G43)."""
    group: Annotated[str, Field(min_length=1)] | None = None
    """The group's name there, where it is not `group`: capitals, `_`, Japanese."""
    servers: dict[Name, Annotated[str, Field(min_length=1)]] = {}
    """Node -> its server's name there, where it is not the node's."""


class ClusterSettings(Section):
    """One failover pair (or more standbys), G1."""

    mode: Mode = "observe"
    language: Literal["en", "ja"] = "en"
    """Of what the scripts write to the cluster log and broadcast."""
    group: Name
    nodes: Annotated[list[Name], Field(min_length=1)]
    """In the group's order of priority."""
    services: Annotated[list[ServiceSettings], Field(min_length=1)]
    watch: WatchSettings = WatchSettings()
    start: ScriptSettings = ScriptSettings()
    stop: StopSettings = StopSettings()
    schedules: ScheduleSettings = ScheduleSettings()
    ack_timeout: Positive = 4.0
    """How long a hook waits for its ticket to be taken."""
    node_ttl: Positive = 5.0
    """A node whose sign of life is older is lost."""
    takeover_deadline: Positive = 900.0
    """A group that was taken away and is not started anywhere after this long: the failover failed."""
    suspicion_deadline: Positive = 600.0
    """A symptom on which the cluster manager did not act for this long is cleared."""
    probation: Seconds = 10.0
    """How long a returned node is `recovering`."""
    metadata: MetadataSettings | None = None
    endpoints: list[EndpointSettings] = []
    clusterpro: ClusterproSettings = ClusterproSettings()

    @model_validator(mode="after")
    def _consistent(self) -> ClusterSettings:
        _refuse([*self._clashes_of_services(), *self._clashes_of_kinds(), *self._clashes_of_nodes(), *self._clashes_of_endpoints()])
        _refuse(
            [
                Clash(("clusterpro", "servers", name), "there is no node '{name}'", {"name": name})
                for name in self.clusterpro.servers
                if name not in self.nodes
            ]
        )
        return self

    def _clashes_of_kinds(self) -> list[Clash]:
        """Settings that only some kinds of services have."""
        clashes = []
        for n, service in enumerate(self.services):
            if service.kind == "command" and service.verbs != VerbSettings():
                text = "a service of kind 'command' is started with its start command and stopped with its stop command"
                clashes.append(Clash(("services", n, "verbs"), text, {}))
            if service.kind != "agent" and service.databases is not None:
                clashes.append(Clash(("services", n, "databases"), "only an agent connects to databases (G2)", {}))
        return clashes

    def _clashes_of_endpoints(self) -> list[Clash]:
        names = [endpoint.name for endpoint in self.endpoints]
        clashes = [
            Clash(("endpoints", n, "name"), "two endpoints are called '{name}'", {"name": name})
            for n, name in enumerate(names)
            if name in names[:n]
        ]
        text = "there is no service '{service}'"
        return clashes + [
            Clash(("endpoints", n, "service"), text, {"service": endpoint.service})
            for n, endpoint in enumerate(self.endpoints)
            if endpoint.service is not None and self.service(endpoint.service) is None
        ]

    def _clashes_of_services(self) -> list[Clash]:
        names = [service.name for service in self.services]
        clashes = [
            Clash(("services", n, "name"), "two services are called '{name}'", {"name": name})
            for n, name in enumerate(names)
            if name in names[:n]
        ]
        kinds = [service.kind for service in self.services]
        if "agent" in kinds and "server" in kinds and kinds.index("server") < len(kinds) - 1 - kinds[::-1].index("agent"):
            text = "an agent on the server's machine is started before the server (G23): put it first"
            clashes.append(Clash(("services", kinds.index("server")), text, {}))
        return clashes

    def _clashes_of_nodes(self) -> list[Clash]:
        twins = [
            Clash(("nodes", n), "two nodes are called '{name}'", {"name": name})
            for n, name in enumerate(self.nodes)
            if name in self.nodes[:n]
        ]
        text = "'{one}' is a prefix of '{other}', so Redis access rules cannot tell them apart"
        return twins + [
            Clash(("nodes", self.nodes.index(one)), text, {"one": one, "other": other})
            for one in dict.fromkeys(self.nodes)
            for other in dict.fromkeys(self.nodes)
            if one != other and other.startswith(one)
        ]

    @property
    def group_there(self) -> str:
        """What CLUSTERPRO calls the group."""
        return self.clusterpro.group or self.group

    def server_there(self, node: str) -> str:
        """What CLUSTERPRO calls a node."""
        return self.clusterpro.servers.get(node, node)

    def service(self, name: str) -> ServiceSettings | None:
        return next((service for service in self.services if service.name == name), None)


class NodeServiceSettings(Section):
    """Where a service's commands are on this node: `command` for an agent or a server, `start` and `stop` for kind `command`."""

    command: Argv | None = None
    """The verb is put behind it: `["C:\\\\DataCoordinatorRA\\\\server\\\\bin\\\\dcserver.bat"]`."""
    start: Argv | None = None
    stop: Argv | None = None
    status: Argv
    """`dcstatus`: exit code 0 is healthy, anything else is not."""

    def argv(self, verb: str) -> list[str]:
        """The whole command line for a verb.

        Raises:
            ValueError: this service knows no such verb here.
        """
        whole = [*self.command, verb] if self.command is not None else {"start": self.start, "stop": self.stop}.get(verb)
        if whole is None:
            raise ValueError(f"no command for {verb}")
        return whole


class RestSettings(Section):
    """CLUSTERPRO's RESTful API (CLUSTERPRO.md, section 4), instead of clpstat and clpgrp or beside them."""

    url: str
    """`https://<node>:29009`"""
    user: str
    password_file: str
    """A file with the password of that OS account, readable by dcsup alone; a password never stands in dcsup.toml."""
    ca_file: str | None = None
    """Certificate authority of the API's certificate; None: the system's."""
    verify: bool = True
    """False: the certificate is not checked. For a network that nobody else is on."""
    limit: Positive = 10.0


class NodeSettings(Section):
    """One machine of the cluster: what `dcsup worker` runs with."""

    name: Name
    cluster: Name
    folder: str
    """The node folder: outbox, tickets, journal. On a local disk that does not move with the group."""
    boot: Argv | None = None
    """A command whose output is this boot's id; the scripts use the same one (NODE.md N4). None: the operating system's own."""
    encoding: Literal["utf-8", "cp932"] = "utf-8"
    """Of the output of the site's commands."""
    services: dict[Name, NodeServiceSettings]
    probe: Argv | None = None
    """Prints one JSON object a line: name, startup_mode auto|manual, state started|stopped."""
    clpstat: Argv | None = None
    clpgrp: Argv | None = None
    rest: RestSettings | None = None
    view: Literal["clpstat", "rest"] = "clpstat"
    """Where the cluster manager's own view comes from: two sources for one and the same."""
    view_interval: Positive = 5.0
    metadata_status: Argv | None = None
    """Exit code 0: the metadata DB's service runs here (G44). None: on Windows its service is asked for, elsewhere only the port."""
    dcsup: Argv = ["dcsup"]
    """How the cluster's scripts call dcsup on this node."""
    clp_bin: str = ""
    """Folder of clplogcmd, armsleep and armbcast; empty: they are on the path."""
    key: SecretSettings | None = None
    """This node's own key, one a line (statemachines/signing.py): with it, jobs that are not signed are refused. None: it is derived from
    the cluster's, where this file or an embedded Redis has one; otherwise jobs are believed as they come."""


Text = Annotated[str, Field(min_length=1)]


class RedisSettings(Section):
    """Where Redis is, and how to get in: an address, a folder with one of dcsup's own, or Sentinels that know where it is now.

    Passwords and certificates are named by file or by environment variable; a file is read anew for each connection, so that a password can
    be changed without a restart.
    """

    url: Annotated[str, AfterValidator(addresses.redis_url)] | None = None
    embedded: str | None = None
    """Folder in which dcsup runs a Redis of its own (append-only, fsync always)."""
    sentinels: Annotated[list[Annotated[str, AfterValidator(addresses.host_and_port)]], Field(min_length=1)] | None = None
    """`host:port` of each Sentinel (port 26379 if left out); they are asked for the master anew for each connection."""
    sentinel_master: Text | None = None
    """What the Sentinels call the master, as in their `sentinel monitor`."""
    sentinel_username: Text | None = None
    sentinel_password_file: Text | None = None
    sentinel_password_env: Text | None = None
    """Where the Sentinels themselves ask for a password."""
    username: Text | None = None
    """ACL user; None: `default`, or the one in the url."""
    password_file: Text | None = None
    password_env: Text | None = None
    tls: bool = False
    """With Sentinels: they and the servers speak TLS. (With a url, rediss:// says so.)"""
    ca_file: Text | None = None
    """Certificate authority of the servers' certificates, PEM; None: the system's."""
    cert_file: Text | None = None
    key_file: Text | None = None
    """This machine's own certificate, where the servers want one, and its key if it is in another file."""

    @model_validator(mode="after")
    def _consistent(self) -> RedisSettings:
        if [self.url, self.embedded, self.sentinels].count(None) != 2:
            text = "set one of url (a Redis of your own), sentinels (that know where it is) or embedded (a folder), and only one"
            _refuse([Clash((), text, {})])
        _refuse([*self._clashes_of_places(), *self._clashes_of_secrets(), *self._clashes_of_tls()])
        return self

    @property
    def speaks_tls(self) -> bool:
        return self.tls or addresses.speaks_tls(self.url or "")

    @property
    def has_password(self) -> bool:
        """Whether a file or a variable holds the password."""
        return self.password_file is not None or self.password_env is not None

    def _clashes_of_places(self) -> Iterator[Clash]:
        if self.sentinels is not None and self.sentinel_master is None:
            yield Clash(("sentinels",), "Sentinels know masters by name: set sentinel_master", {})
        only_sentinels = ("sentinel_master", "sentinel_username", "sentinel_password_file", "sentinel_password_env", "tls")
        for key in only_sentinels if self.sentinels is None else ():
            if getattr(self, key):
                yield Clash((key,), "it belongs to sentinels, and there are none", {})
        for key in ("username", "password_file", "password_env") if self.embedded is not None else ():
            if getattr(self, key) is not None:
                yield Clash((key,), "the embedded Redis knows no users: only this machine's user can reach it", {})

    def _clashes_of_secrets(self) -> Iterator[Clash]:
        for before in ("", "sentinel_"):
            in_file, in_env = getattr(self, f"{before}password_file"), getattr(self, f"{before}password_env")
            if in_file is not None and in_env is not None:
                text = "set either {before}password_file or {before}password_env, and not both"
                yield Clash((f"{before}password_env",), text, {"before": before})
            if getattr(self, f"{before}username") is not None and in_file is None and in_env is None:
                yield Clash((f"{before}username",), "a user has a password: set {before}password_file", {"before": before})
        if addresses.holds_password(self.url or "") and self.has_password:
            key = "password_file" if self.password_file is not None else "password_env"
            yield Clash((key,), "url holds a password already: take it out there", {})
        if addresses.names_user(self.url or "") and self.username is not None:
            yield Clash(("username",), "url names a user already: take it out there", {})

    def _clashes_of_tls(self) -> Iterator[Clash]:
        for key in ("ca_file", "cert_file", "key_file") if not self.speaks_tls else ():
            if getattr(self, key) is not None:
                yield Clash((key,), "it is for TLS: write url as rediss://..., or tls = true beside sentinels", {})
        if self.key_file is not None and self.cert_file is None:
            yield Clash(("key_file",), "a key needs its certificate: set cert_file", {})


class OrchestratorSettings(Section):
    listen: str = "127.0.0.1:9464"
    """Where /metrics and /status are served; an address that other machines reach needs a token, or `open`."""
    url: str | None = None
    """How others reach it, if not as `listen` says: `https://orchestrator1.example:9464`."""
    token_file: Annotated[str, Field(min_length=1)] | None = None
    """A file with the token that whoever asks must show (`Authorization: Bearer ...`). None, nor `token_env`: nobody is asked for one."""
    token_env: Annotated[str, Field(min_length=1)] | None = None
    open: bool = False
    """Anybody who reaches the address may read metrics and states: said on purpose."""
    cert_file: Annotated[str, Field(min_length=1)] | None = None
    """Certificate chain, PEM: with it the endpoint speaks TLS only."""
    key_file: Annotated[str, Field(min_length=1)] | None = None
    """The certificate's private key, PEM; None: it is in `cert_file`."""
    ca_file: Annotated[str, Field(min_length=1)] | None = None
    """Certificate authority by which the commands know the endpoint; None: the system's, or the certificate itself."""
    lease_ttl: Positive = 1.5
    snapshot_every: Annotated[int, Field(ge=10)] = 500
    """Log entries between two snapshots."""

    @model_validator(mode="after")
    def _consistent(self) -> OrchestratorSettings:
        clashes = []
        if self.token_file is not None and self.token_env is not None:
            clashes.append(Clash(("token_env",), "set either token_file or token_env, and not both", {}))
        if self.open and self.has_token:
            clashes.append(Clash(("open",), "open means that no token is asked for: leave one of them out", {}))
        if self.key_file is not None and self.cert_file is None:
            clashes.append(Clash(("key_file",), "a key needs its certificate: set cert_file", {}))
        _refuse(clashes)
        return self

    @property
    def has_token(self) -> bool:
        return self.token_file is not None or self.token_env is not None


class Configuration(Section):
    redis: RedisSettings
    orchestrator: OrchestratorSettings = OrchestratorSettings()
    clusters: Annotated[dict[Name, ClusterSettings], Field(min_length=1)]
    keys: dict[Name, SecretSettings] = {}
    """Cluster -> its key, one a line (statemachines/signing.py): for orchestrators. A node should have only its own ([node.key])."""
    node: NodeSettings | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Configuration:
        text = "there is no cluster '{name}'"
        clashes = [Clash(("keys", name), text, {"name": name}) for name in self.keys if name not in self.clusters]
        _refuse(clashes + (self._clashes_of_node(self.node) if self.node is not None else []))
        return self

    def _clashes_of_node(self, node: NodeSettings) -> list[Clash]:
        cluster = self.clusters.get(node.cluster)
        if cluster is None:
            text = "cluster '{cluster}' has no [clusters.{cluster}] table"
            return [Clash(("node", "cluster"), text, {"cluster": node.cluster})]
        clashes = []
        if node.name not in cluster.nodes:
            text = "'{name}' is not among the nodes of cluster '{cluster}'"
            clashes.append(Clash(("node", "name"), text, {"name": node.name, "cluster": node.cluster}))
        text = "there is no [node.services.{service}] table, though the cluster has that service"
        missing = [service.name for service in cluster.services if service.name not in node.services]
        clashes += [Clash(("node", "services"), text, {"service": name}) for name in missing]
        text = "cluster '{cluster}' has no service '{service}'"
        unknown = [name for name in node.services if cluster.service(name) is None]
        clashes += [Clash(("node", "services", name), text, {"cluster": node.cluster, "service": name}) for name in unknown]
        return [*clashes, *_clashes_of_commands(cluster, node)]


def _clashes_of_commands(cluster: ClusterSettings, node: NodeSettings) -> Iterator[Clash]:
    """Each kind of service has its own commands on a node."""
    for name, place in node.services.items():
        service = cluster.service(name)
        if service is None:
            continue
        wanted = ("start", "stop") if service.kind == "command" else ("command",)
        for key in ("command", "start", "stop"):
            given = getattr(place, key) is not None
            if given != (key in wanted):
                text = "a service of kind '{kind}' needs '{key}'" if key in wanted else "a service of kind '{kind}' has no '{key}'"
                where = ("node", "services", name, key) if given else ("node", "services", name)
                yield Clash(where, text, {"kind": service.kind, "key": key, "cluster": node.cluster})
