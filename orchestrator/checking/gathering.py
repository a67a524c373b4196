"""From a configuration, an exported CLUSTERPRO configuration and the nodes' inspections to evidence, cluster by cluster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from orchestrator.checking.evidence import Evidence, NodeEvidence
from orchestrator.clpconf.exported import Exported
from orchestrator.tomllines import lines_of
from statemachines.configuration import Configuration


def gather(
    configuration: Configuration | None,
    config_file: str,
    clusters: Iterable[str],
    exported: Exported | None,
    nodes: Sequence[NodeEvidence],
    metadata_path: str | None = None,
    shared_folder: str | None = None,
) -> list[Evidence]:
    """The evidence about each cluster; without a configuration, about the one that CLUSTERPRO's describes.

    Args:
        exported: taken for every cluster; give one cluster when the file describes one of several.
    """
    if configuration is None:
        name = exported.conf.cluster if exported is not None else ""
        return [Evidence(name, exported=exported, nodes=tuple(nodes), metadata_path=metadata_path, shared_folder=shared_folder)]
    lines = lines_of(Path(config_file).read_bytes())
    node = configuration.node
    return [
        Evidence(
            cluster=name,
            settings=configuration.clusters[name],
            node_settings=node if node is not None and node.cluster == name else None,
            whole=configuration,
            config_file=config_file,
            lines=lines,
            exported=exported,
            nodes=tuple(one for one in nodes if one.cluster == name),
            metadata_path=metadata_path,
            shared_folder=shared_folder,
        )
        for name in clusters
    ]
