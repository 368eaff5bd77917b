"""Updates: which fields change, with a mask and without."""

from dataclasses import fields

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from sandpool.v1 import pool_pb2
from sandpool.v1 import pool_service_pb2 as p
from sandpool.v1 import sandbox_service_pb2 as s
from sandpool.v1 import template_service_pb2 as t
from sandpool_server.domain.model import PullPolicy
from sandpool_server.rpc.requests import (
    POOL_FIELDS,
    SANDBOX_FIELDS,
    TEMPLATE_FIELDS,
    pool_changes,
    sandbox_changes,
    template_changes,
)
from sandpool_server.usecases.values import (
    PoolChanges,
    SandboxChanges,
    SpecChanges,
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
    assert set(updatable) == names
    taken = {field.name for field in fields(changes)}
    if "spec" in taken:
        taken = taken - {"spec"} | {field.name for field in fields(SpecChanges)}
    assert taken == names


def test_without_a_mask_what_is_present_changes() -> None:
    request = p.UpdatePoolRequest(pool_id="x", warm_containers=0, name="", entrypoint=["a"], paused=False, cpus=2)
    assert pool_changes(request) == PoolChanges(
        SpecChanges(cpus=2.0, entrypoint=("a",)), name="", warm_containers=0, paused=False
    )


def test_a_specification_changes_as_specifications_are_kept() -> None:
    request = t.UpdateTemplateRequest(
        template_name="x",
        env={"B": "2", "A": "1"},
        readiness_command=["true"],
        readiness_interval_secs=1,
        readiness_timeout_secs=2,
        readiness_retries=3,
    )
    spec = SpecChanges(
        env=(("A", "1"), ("B", "2")),
        readiness_command=("true",),
        readiness_interval_secs=1.0,
        readiness_timeout_secs=2.0,
        readiness_retries=3,
    )
    assert template_changes(request) == TemplateChanges(spec)


def test_how_a_pool_is_kept_changes_without_its_specification() -> None:
    request = p.UpdatePoolRequest(
        pool_id="x", pull_policy=pool_pb2.PULL_POLICY_NEVER, image_check_secs=0, max_age_secs=9, drain=True
    )
    assert pool_changes(request) == PoolChanges(
        pull_policy=PullPolicy.NEVER, image_check_secs=0, max_age_secs=9, drain=True
    )
    unspecified = p.UpdatePoolRequest(pool_id="x", pull_policy=pool_pb2.PULL_POLICY_UNSPECIFIED)
    assert pool_changes(unspecified) == PoolChanges(pull_policy=PullPolicy.MISSING)


def test_what_the_mask_names_goes_back_to_its_default_in_specifications_too() -> None:
    paths = ("env", "readiness_command", "readiness_retries", "pull_policy", "drain", "max_age_secs")
    assert pool_changes(p.UpdatePoolRequest(pool_id="x", update_mask=mask(*paths))) == PoolChanges(
        SpecChanges(env=None, readiness_command=None, readiness_retries=None),
        pull_policy=None,
        drain=None,
        max_age_secs=None,
    )


def test_an_empty_mask_is_no_mask() -> None:
    assert pool_changes(p.UpdatePoolRequest(pool_id="x", cpus=2, update_mask=mask())) == PoolChanges(
        SpecChanges(cpus=2)
    )


def test_without_anything_nothing_changes() -> None:
    assert pool_changes(p.UpdatePoolRequest(pool_id="x")) == PoolChanges()
    assert template_changes(t.UpdateTemplateRequest(template_name="x")) == TemplateChanges()
    assert sandbox_changes(s.UpdateSandboxRequest(sandbox_id="x")) == SandboxChanges()


def test_a_mask_chooses_among_what_is_present() -> None:
    request = p.UpdatePoolRequest(pool_id="x", warm_containers=4, name="n", update_mask=mask("warm_containers"))
    assert pool_changes(request) == PoolChanges(warm_containers=4)


def test_what_the_mask_names_and_the_request_leaves_out_goes_back_to_its_default() -> None:
    request = p.UpdatePoolRequest(
        pool_id="x", update_mask=mask("max_containers", "timeout_secs", "entrypoint", "secret_names", "name")
    )
    assert pool_changes(request) == PoolChanges(
        SpecChanges(entrypoint=None, secret_names=None), name=None, max_containers=None, timeout_secs=None
    )
    emptied = s.UpdateSandboxRequest(sandbox_id="x", update_mask=mask("metadata"))
    assert sandbox_changes(emptied) == SandboxChanges(metadata=None)


def test_a_star_means_all() -> None:
    request = s.UpdateSandboxRequest(sandbox_id="x", metadata={"a": "b"}, timeout_secs=3, update_mask=mask("*"))
    assert sandbox_changes(request) == SandboxChanges(name=None, metadata={"a": "b"}, timeout_secs=3)
    request = t.UpdateTemplateRequest(template_name="x", image="i", update_mask=mask("*"))
    nothing = SpecChanges("i", *[None] * (len(fields(SpecChanges)) - 1))
    assert template_changes(request) == TemplateChanges(nothing, None, None)


async def test_the_update_arrives_whole(rig: Rig) -> None:
    await rig.pools.CreatePool(p.CreatePoolRequest(name="web", image="i"))
    answer = await rig.pools.UpdatePool(
        p.UpdatePoolRequest(
            pool_id="web", warm_containers=2, etag="v1", request_id="r", update_mask=mask("warm_containers")
        )
    )
    ref, changes, etag, request_id, fingerprint = rig.fakes.faults.last
    assert (ref, changes, etag, request_id) == ("web", PoolChanges(warm_containers=2), "v1", "r")
    assert len(fingerprint) == 32
    assert (answer.pool.warm_containers, answer.pool.etag) == (2, "v2")


async def test_a_pool_shows_what_was_changed(rig: Rig) -> None:
    await rig.pools.CreatePool(p.CreatePoolRequest(name="web", image="i", env={"A": "1"}))
    changes = {
        "env": {"B": "2"},
        "readiness_command": ["true"],
        "readiness_retries": 3,
        "pull_policy": pool_pb2.PULL_POLICY_ALWAYS,
        "image_check_secs": 60,
        "max_age_secs": 70,
        "drain": True,
    }
    pool = (await rig.pools.UpdatePool(p.UpdatePoolRequest(pool_id="web", **changes))).pool
    assert dict(pool.env) == {"B": "2"}
    assert (list(pool.readiness_command), pool.readiness_retries) == (["true"], 3)
    assert (pool.image_check_secs, pool.max_age_secs, pool.drain) == (60, 70, True)
    assert pool.pull_policy == pool_pb2.PULL_POLICY_ALWAYS
    request = p.UpdatePoolRequest(pool_id="web", update_mask=mask(*changes))
    pool = (await rig.pools.UpdatePool(request)).pool
    assert (dict(pool.env), list(pool.readiness_command), pool.readiness_retries) == ({}, [], 20)
    assert (pool.image_check_secs, pool.max_age_secs, pool.drain) == (0, 0, False)
    assert pool.pull_policy == pool_pb2.PULL_POLICY_MISSING


async def test_templates_and_sandboxes_update_alike(rig: Rig) -> None:
    await rig.templates.CreateTemplate(t.CreateTemplateRequest(name="py", image="i"))
    changed = await rig.templates.UpdateTemplate(t.UpdateTemplateRequest(template_name="py", image="j", etag="v1"))
    assert rig.fakes.faults.last[:3] == ("py", TemplateChanges(SpecChanges(image="j")), "v1")
    assert (changed.template.image, changed.template.etag) == ("j", "v2")
    await rig.sandboxes.CreateSandbox(s.CreateSandboxRequest(image="i", name="one"))
    renamed = await rig.sandboxes.UpdateSandbox(s.UpdateSandboxRequest(sandbox_id="one", name="", request_id="r"))
    assert rig.fakes.faults.last[:4] == ("one", SandboxChanges(name=""), "", "r")
    assert (renamed.sandbox.name, renamed.sandbox.etag) == ("", "v2")
