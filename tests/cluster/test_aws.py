"""cluster/aws.yaml by Ray's own check and EC2's own parameter types; no call to AWS is made."""

import json
import re
import sys
from pathlib import Path
from typing import Any

import botocore.session
import pytest
import yaml
from botocore.validate import ParamValidator
from ray.autoscaler._private import util
from ray.autoscaler._private.node_provider_availability_tracker import (
    NodeAvailabilityRecord,
    NodeAvailabilitySummary,
)
from ray.autoscaler._private.resource_demand_scheduler import get_nodes_for

CLUSTER = Path(__file__).parents[2] / "cluster"


@pytest.fixture
def config() -> dict[str, Any]:
    return yaml.safe_load((CLUSTER / "aws.yaml").read_text())


@pytest.fixture
def prepared(config: dict[str, Any]) -> dict[str, Any]:
    """As `ray up` fills it, before it asks AWS for anything."""
    return util.prepare_config(config)


def test_ray_takes_it(prepared: dict[str, Any]) -> None:
    util.validate_config(prepared)


def test_ec2_takes_the_nodes(config: dict[str, Any]) -> None:
    shape = botocore.session.Session().get_service_model("ec2").operation_model("RunInstances").input_shape
    for name, kind in config["available_node_types"].items():
        call = {**kind["node_config"], "MinCount": 1, "MaxCount": 1}
        call["SubnetId"] = call.pop("SubnetIds")[0]  # Ray takes them one after the other
        assert not ParamValidator().validate(call, shape).has_errors(), name


def test_every_field_has_its_reason() -> None:
    """The line above a field is a comment, where it stands first or at its like in another node type."""
    lines = (CLUSTER / "aws.yaml").read_text().splitlines()
    fields, commented = set(), set()
    for above, line in zip(["", *lines], lines, strict=False):
        if match := re.match(r"\s*(?:- )?([\w./-]+):(\s|$)", line):
            fields.add(match[1])
            if above.lstrip().startswith("#"):
                commented.add(match[1])
    # Headings whose fields are commented one by one; what the comment above `setup_commands` speaks of too.
    headings = {
        "provider",
        "auth",
        "available_node_types",
        "node_config",
        "BlockDeviceMappings",
        "Ebs",
        "run_options",
    }
    assert fields - commented == headings | {"head_setup_commands", "worker_setup_commands"}


def test_the_head_works_not_and_gpus_start_from_zero(prepared: dict[str, Any]) -> None:
    kinds = prepared["available_node_types"]
    assert kinds["head"]["resources"] == {"CPU": 0, "GPU": 0}
    assert "--num-cpus=0 --num-gpus=0" in " ".join(prepared["head_start_ray_commands"])
    assert kinds["gpu"]["min_workers"] == kinds["gpu-spot"]["min_workers"] == 0
    assert prepared["idle_timeout_minutes"] > 0


def test_a_spot_type_and_its_twin_differ_in_the_market_alone(config: dict[str, Any]) -> None:
    kinds = config["available_node_types"]
    for name in ("cpu", "gpu"):
        spot, demand = kinds[f"{name}-spot"], kinds[name]
        assert spot["resources"] == demand["resources"] and spot["priority"] > demand["priority"]
        market = spot["node_config"].pop("InstanceMarketOptions")
        assert market == {"MarketType": "spot"} and spot["node_config"] == demand["node_config"]


@pytest.mark.parametrize(
    ("refused", "demand", "expected"),
    [
        ([], {"CPU": 1, "GPU": 1}, "gpu-spot"),
        (["gpu-spot"], {"CPU": 1, "GPU": 1}, "gpu"),
        (["gpu-spot", "gpu"], {"CPU": 1, "GPU": 1}, "gpu-spot"),  # nothing better; it is asked again
        ([], {"CPU": 1}, "cpu-spot"),
        (["cpu-spot"], {"CPU": 1}, "cpu"),  # and no GPU node
        (["cpu"], {"CPU": 1}, "cpu-spot"),
    ],
)
def test_spot_falls_back_to_on_demand(
    prepared: dict[str, Any],
    monkeypatch: pytest.MonkeyPatch,
    refused: list[str],
    demand: dict[str, float],
    expected: str,
) -> None:
    """By Ray's own scheduler, with the scorer that the head's command names."""
    command = prepared["head_start_ray_commands"][-1]
    assert "PYTHONPATH=/home/ray/syncir/cluster RAY_AUTOSCALER_UTILIZATION_SCORER=spot_first.score" in command
    monkeypatch.syspath_prepend(CLUSTER)
    from ray._common.utils import load_class as load

    score = load("spot_first.score")
    summary = NodeAvailabilitySummary({name: NodeAvailabilityRecord(name, False, 0, None) for name in refused})
    nodes, left = get_nodes_for(
        prepared["available_node_types"],
        {"head": 1},
        "head",
        1,
        [demand],
        lambda *given: score(*given, node_availability_summary=summary),
    )
    assert dict(nodes) == {expected: 1} and not left
    sys.modules.pop("spot_first")


def test_nothing_is_open(prepared: dict[str, Any]) -> None:
    assert prepared["provider"]["use_internal_ips"] is True
    for kind in prepared["available_node_types"].values():
        node = kind["node_config"]
        # Given, or Ray makes a group that is open on port 22 and a role with full access to EC2 and S3.
        assert node["SecurityGroupIds"] and node["IamInstanceProfile"] and node["SubnetIds"]
        assert node["MetadataOptions"]["HttpTokens"] == "required"
    assert "--dashboard-host=127.0.0.1" in prepared["head_start_ray_commands"][-1]
    assert (
        prepared["auth"]["ssh_proxy_use_node_id"] and "ssm start-session" in prepared["auth"]["ssh_proxy_command"]
    )


def test_the_token_is_asked_for(prepared: dict[str, Any]) -> None:
    assert "-e RAY_AUTH_MODE=token" in prepared["docker"]["run_options"]
    assert prepared["file_mounts"] == {"/home/ray/.ray/auth_token": "~/.ray/auth_token"}


def test_nothing_is_installed_on_a_node(prepared: dict[str, Any]) -> None:
    """Ray's defaults would install a nightly build."""
    for commands in ("setup_commands", "head_setup_commands", "worker_setup_commands"):
        assert prepared[commands] == []


@pytest.mark.parametrize("name", ["s3", "head"])
def test_policies_are_well_formed_and_narrow(name: str) -> None:
    policy = json.loads((CLUSTER / "iam" / f"{name}.json").read_text())
    assert policy.keys() == {"Version", "Statement"} and policy["Version"] == "2012-10-17"
    for statement in policy["Statement"]:
        assert statement.keys() <= {"Sid", "Effect", "Action", "Resource", "Condition"}
        assert statement["Effect"] == "Allow" and re.fullmatch(r"[A-Za-z0-9]+", statement["Sid"])
        actions, resources = ([v] if isinstance(v := statement[key], str) else v for key in ("Action", "Resource"))
        assert all(re.fullmatch(r"(s3|ec2|iam|ssm):[A-Z][A-Za-z]+", action) for action in actions)  # no wildcard
        for resource in resources:
            look = all(action.startswith("ec2:Describe") for action in actions)  # takes no resource
            assert (resource == "*") == look and (look or resource.startswith("arn:aws:"))


def test_the_s3_policy_allows_what_storage_does_and_writes_nothing_else() -> None:
    statements = json.loads((CLUSTER / "iam" / "s3.json").read_text())["Statement"]
    source = (CLUSTER.parent / "syncir_ray" / "s3.py").read_text()
    needs = {
        "get_object": "GetObject",
        "head_object": "GetObject",
        "download_file": "GetObject",
        "put_object": "PutObject",
        "upload_fileobj": "PutObject",
        "delete_object": "DeleteObject",
        "list_objects_v2": "ListBucket",
    }
    used = set(re.findall(r"client\(\)\.(\w+)\(", source)) - {"get_paginator"}
    used |= set(re.findall(r'get_paginator\("(\w+)"\)', source))
    assert used <= needs.keys(), "an S3 call that this test does not know: does the policy allow it?"
    allowed = [a for s in statements for a in ([s["Action"]] if isinstance(s["Action"], str) else s["Action"])]
    assert {f"s3:{needs[call]}" for call in used} <= set(allowed)
    writes = [r for s in statements if "s3:PutObject" in s["Action"] for r in s["Resource"]]
    assert writes == ["arn:aws:s3:::BUCKET/run/*", "arn:aws:s3:::BUCKET/model/*"]
