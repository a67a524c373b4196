"""The shapes as data: each is a valid configuration, for each node and for the orchestrator, and what is rendered from it fits it."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from deploy.sandbox.shapes import SHAPES, Shape
from deploy.sandbox.site import CLUSTER, Site, dcsup_command
from orchestrator.settings import load


@pytest.fixture(params=SHAPES)
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """A site of each shape, with its files written and nothing but Redis running."""
    with Site(tmp_path, orchestrators=("a",), shape=SHAPES[request.param]) as made:
        made.redis.start()
        made.write_configuration()
        yield made


def _kinds(shape: Shape) -> list[tuple[str, str]]:
    return [(service.name, service.kind) for service in shape.services]


def test_each_shapes_files_are_a_valid_configuration(site: Site) -> None:
    """G1, G2, G23, G24: services in start order, commands of every service on every node, endpoints of what clients connect to."""
    shape = site.shape
    for name in ("a", *site.cluster.nodes):
        configuration = load(site.config(name))
        cluster = configuration.clusters[CLUSTER]
        assert [(service.name, service.kind) for service in cluster.services] == _kinds(shape)
        assert tuple(cluster.nodes) == shape.nodes
        assert {endpoint.service for endpoint in cluster.endpoints} == {name for name, kind in _kinds(shape) if kind != "command"}
        assert (cluster.metadata is not None) == shape.metadata
        if configuration.node is not None:
            assert {path for place in configuration.node.services.values() for path in place.status if not Path(path).exists()} == set()


def test_each_shape_has_its_resources_and_the_scripts_that_they_run(site: Site) -> None:
    """G40: floating IP, disk, script, then a resident application for each service; the rendered settings name the same services."""
    site.install_supervised_scripts()
    site.install_alerts()
    for node in site.cluster.nodes:
        settings = (site.cluster.node_dir(node) / "scripts" / "dcsup.env").read_text(encoding="utf-8")
        names = [name for name, _ in _kinds(site.shape)]
        assert any(line.startswith("DCSUP_SERVICES=") and all(name in line for name in names) for line in settings.splitlines())
        assert "rm@9" in (site.cluster.node_dir(node) / "clp" / "etc" / "alerts.json").read_text(encoding="utf-8")
    assert site.shape.resources == ("fip1", "sd1", "script1", *(f"appli-{service.name}" for service in site.shape.services))


def test_the_shapes_can_be_listed_and_a_wrong_name_is_told() -> None:
    """`dcsup up --sandbox --list-shapes` names every shape; another name is wrong use, with the names that there are."""
    listed = subprocess.run([*dcsup_command(), "up", "--sandbox", "--list-shapes"], capture_output=True, text=True, check=True)
    assert [line.split()[0] for line in listed.stdout.splitlines()] == list(SHAPES)
    wrong = subprocess.run([*dcsup_command(), "up", "--sandbox", "--shape", "round"], capture_output=True, text=True, check=False)
    assert wrong.returncode == 2
    assert all(name in wrong.stderr for name in SHAPES)
