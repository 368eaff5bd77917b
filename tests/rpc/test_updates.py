"""Fields that updates change, with and without a mask."""

from dataclasses import fields

import pytest
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask

from sandpool.v1 import container_pb2 as c
from sandpool.v1 import pool_service_pb2 as p
from sandpool.v1 import sandbox_service_pb2 as s
from sandpool.v1 import template_service_pb2 as t
from sandpool_server.domain.spec import ContainerSpec, PullPolicy, ReadinessProbe
from sandpool_server.rpc.requests import (
    POOL_FIELDS,
    SANDBOX_FIELDS,
    TEMPLATE_FIELDS,
    pool_changes,
    sandbox_changes,
    template_changes,
)
from sandpool_server.rpc.specs import SPEC_FIELDS
from sandpool_server.usecases.values import (
    PoolChanges,
    SandboxChanges,
    TemplateChanges,
)
from tests.rpc.conftest import Rig


def mask(*paths: str) -> FieldMask:
    return FieldMask(paths=paths)


@pytest.mark.parametrize(
    ("request_type", "reference", "updatable", "changes"),
    [
        (p.UpdatePoolRequest, "pool_id", POOL_FIELDS, PoolChanges),
        (t.UpdateTemplateRequest, "template_name", TEMPLATE_FIELDS, TemplateChanges),
        (s.UpdateSandboxRequest, "sandbox_id", SANDBOX_FIELDS, SandboxChanges),
    ],
    ids=["pool", "template", "sandbox"],
)
def test_every_field_of_an_update_can_be_updated(request_type, reference, updatable, changes) -> None:
    names = set(request_type.DESCRIPTOR.fields_by_name) - {reference, "update_mask", "etag", "request_id"}
    assert set(updatable) == names - {"spec"}
    converted = {field.name.removesuffix("_secs") for field in fields(changes)}
    assert converted == names


def test_every_field_of_a_specification_can_be_updated() -> None:
    assert set(SPEC_FIELDS) == {field.name for field in fields(ContainerSpec)}


def test_changes_every_field_that_is_present_without_a_mask() -> None:
    request = p.UpdatePoolRequest(
        pool_id="x", warm_containers=0, name="", spec=c.ContainerSpec(entrypoint=["a"], cpus=2), paused=False
    )
    assert pool_changes(request) == PoolChanges(
        {"cpus": 2.0, "entrypoint": ("a",)}, name="", warm_containers=0, paused=False
    )


def test_converts_the_fields_of_a_specification() -> None:
    probe = c.ReadinessProbe(
        command=["true"], interval=Duration(seconds=1), timeout=Duration(nanos=500_000_000), failure_threshold=3
    )
    spec = c.ContainerSpec(env={"B": "2", "A": "1"}, readiness_probe=probe, pull_policy=c.PULL_POLICY_NEVER)
    assert template_changes(t.UpdateTemplateRequest(template_name="x", spec=spec)) == TemplateChanges(
        {
            "env": (("A", "1"), ("B", "2")),
            "readiness_probe": ReadinessProbe(("true",), 1.0, 0.5, 3),
            "pull_policy": PullPolicy.NEVER,
        }
    )


def test_changes_durations_and_switches_of_a_pool() -> None:
    request = p.UpdatePoolRequest(
        pool_id="x", image_refresh_interval=Duration(), warm_ttl=Duration(seconds=9), drained=True
    )
    assert pool_changes(request) == PoolChanges(image_refresh_interval_secs=0.0, warm_ttl_secs=9.0, drained=True)


def test_restores_the_default_of_a_field_that_only_the_mask_names() -> None:
    paths = ("spec.env", "spec.readiness_probe", "spec.pull_policy", "drained", "warm_ttl")
    assert pool_changes(p.UpdatePoolRequest(pool_id="x", update_mask=mask(*paths))) == PoolChanges(
        {"env": None, "readiness_probe": None, "pull_policy": None}, drained=None, warm_ttl_secs=None
    )


def test_mask_with_spec_replaces_whole_specification() -> None:
    request = t.UpdateTemplateRequest(
        template_name="x", spec=c.ContainerSpec(image="i", cpus=2), update_mask=mask("spec")
    )
    expected = dict.fromkeys(SPEC_FIELDS) | {"image": "i", "cpus": 2.0}
    assert template_changes(request) == TemplateChanges(expected)


def test_mask_without_spec_ignores_specification() -> None:
    request = t.UpdateTemplateRequest(template_name="x", spec=c.ContainerSpec(image="i"), update_mask=mask("name"))
    assert template_changes(request) == TemplateChanges(name=None)


def test_empty_mask_is_treated_as_no_mask() -> None:
    request = p.UpdatePoolRequest(pool_id="x", spec=c.ContainerSpec(cpus=2), update_mask=mask())
    assert pool_changes(request) == PoolChanges({"cpus": 2.0})


def test_changes_nothing_without_fields() -> None:
    assert pool_changes(p.UpdatePoolRequest(pool_id="x")) == PoolChanges()
    assert template_changes(t.UpdateTemplateRequest(template_name="x")) == TemplateChanges()
    assert sandbox_changes(s.UpdateSandboxRequest(sandbox_id="x")) == SandboxChanges()


def test_mask_selects_from_present_fields() -> None:
    request = p.UpdatePoolRequest(pool_id="x", warm_containers=4, name="n", update_mask=mask("warm_containers"))
    assert pool_changes(request) == PoolChanges(warm_containers=4)


def test_restores_default_of_masked_absent_field() -> None:
    request = p.UpdatePoolRequest(
        pool_id="x", update_mask=mask("max_containers", "timeout", "spec.entrypoint", "spec.secret_names", "name")
    )
    assert pool_changes(request) == PoolChanges(
        {"entrypoint": None, "secret_names": None}, name=None, max_containers=None, timeout_secs=None
    )
    emptied = s.UpdateSandboxRequest(sandbox_id="x", update_mask=mask("metadata"))
    assert sandbox_changes(emptied) == SandboxChanges(metadata=None)


def test_star_mask_selects_all_fields() -> None:
    request = s.UpdateSandboxRequest(
        sandbox_id="x", metadata={"a": "b"}, timeout=Duration(seconds=3), update_mask=mask("*")
    )
    assert sandbox_changes(request) == SandboxChanges(name=None, metadata={"a": "b"}, timeout_secs=3.0)
    request = t.UpdateTemplateRequest(template_name="x", spec=c.ContainerSpec(image="i"), update_mask=mask("*"))
    assert template_changes(request) == TemplateChanges(dict.fromkeys(SPEC_FIELDS) | {"image": "i"}, None, None)


async def test_update_passes_all_values(rig: Rig) -> None:
    await rig.pools.CreatePool(p.CreatePoolRequest(name="web", spec=c.ContainerSpec(image="i")))
    response = await rig.pools.UpdatePool(
        p.UpdatePoolRequest(
            pool_id="web", warm_containers=2, etag="v1", request_id="r", update_mask=mask("warm_containers")
        )
    )
    ref, changes, etag, request_id, fingerprint = rig.fakes.faults.last
    assert (ref, changes, etag, request_id) == ("web", PoolChanges(warm_containers=2), "v1", "r")
    assert len(fingerprint) == 32
    assert (response.pool.warm_containers, response.pool.etag) == (2, "v2")


async def test_returns_changed_fields_of_pool(rig: Rig) -> None:
    spec = c.ContainerSpec(image="i", env={"A": "1"})
    await rig.pools.CreatePool(p.CreatePoolRequest(name="web", spec=spec))
    changes = {
        "spec": c.ContainerSpec(
            env={"B": "2"},
            readiness_probe=c.ReadinessProbe(command=["true"], failure_threshold=3),
            pull_policy=c.PULL_POLICY_ALWAYS,
        ),
        "image_refresh_interval": Duration(seconds=60),
        "warm_ttl": Duration(seconds=70),
        "drained": True,
    }
    pool = (await rig.pools.UpdatePool(p.UpdatePoolRequest(pool_id="web", **changes))).pool
    assert (pool.spec.image, dict(pool.spec.env)) == ("i", {"B": "2"})
    probe = pool.spec.readiness_probe
    assert (list(probe.command), probe.failure_threshold, probe.timeout) == (["true"], 3, Duration(seconds=5))
    assert (pool.image_refresh_interval.seconds, pool.warm_ttl.seconds, pool.drained) == (60, 70, True)
    assert pool.spec.pull_policy == c.PULL_POLICY_ALWAYS
    paths = ("spec.env", "spec.readiness_probe", "spec.pull_policy", "image_refresh_interval", "warm_ttl", "drained")
    request = p.UpdatePoolRequest(pool_id="web", update_mask=mask(*paths))
    pool = (await rig.pools.UpdatePool(request)).pool
    assert (pool.spec.image, dict(pool.spec.env), pool.spec.HasField("readiness_probe")) == ("i", {}, False)
    assert (pool.HasField("image_refresh_interval"), pool.HasField("warm_ttl"), pool.drained) == (False, False, False)
    assert pool.spec.pull_policy == c.PULL_POLICY_MISSING


async def test_updates_templates_and_sandboxes(rig: Rig) -> None:
    await rig.templates.CreateTemplate(t.CreateTemplateRequest(name="py", spec=c.ContainerSpec(image="i")))
    changed = await rig.templates.UpdateTemplate(
        t.UpdateTemplateRequest(template_name="py", spec=c.ContainerSpec(image="j"), etag="v1")
    )
    assert rig.fakes.faults.last[:3] == ("py", TemplateChanges({"image": "j"}), "v1")
    assert (changed.template.spec.image, changed.template.etag) == ("j", "v2")
    await rig.sandboxes.CreateSandbox(s.CreateSandboxRequest(spec=c.ContainerSpec(image="i"), name="one"))
    renamed = await rig.sandboxes.UpdateSandbox(s.UpdateSandboxRequest(sandbox_id="one", name="", request_id="r"))
    assert rig.fakes.faults.last[:4] == ("one", SandboxChanges(name=""), "", "r")
    assert (renamed.sandbox.name, renamed.sandbox.etag) == ("", "v2")
