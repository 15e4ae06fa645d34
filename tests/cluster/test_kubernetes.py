"""cluster/kubernetes: what the kustomizations make, against the kinds' schemas and KubeRay's own rules."""

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import ray
import yaml
from jsonschema import Draft202012Validator
from referencing import Registry, Resource

from tests.cluster import kustomize

FOLDER = Path(__file__).parents[2] / "cluster" / "kubernetes"
SCHEMAS = Path(__file__).parent / "schemas"
OVERLAYS = ["gpu", "local"]
CUSTOM = ["RayCluster", "RayJob", "ServiceMonitor", "PrometheusRule"]


@pytest.fixture(params=OVERLAYS)
def overlay(request: pytest.FixtureRequest) -> list[dict[str, Any]]:
    return kustomize.build(FOLDER / "overlays" / request.param)


def errors(resource: dict[str, Any]) -> list[str]:
    kubernetes = json.loads((SCHEMAS / "kubernetes.json").read_text())
    crds = yaml.safe_load((SCHEMAS / "crds.yaml").read_text())
    registry = Registry().with_resources((schema["$id"], Resource.opaque(schema)) for schema in (kubernetes, crds))
    file = crds if resource["kind"] in CUSTOM else kubernetes
    assert resource["kind"] in file["$defs"], f"no schema of {resource['kind']} is written down"
    validator = Draft202012Validator({"$ref": f"{file['$id']}#/$defs/{resource['kind']}"}, registry=registry)
    return [f"{error.json_path}: {error.message}" for error in validator.iter_errors(resource)]


def specs(resources: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The specs of all Ray clusters, the jobs' too."""
    clusters = [r["spec"] for r in resources if r["kind"] == "RayCluster"]
    return clusters + [r["spec"]["rayClusterSpec"] for r in resources if r["kind"] == "RayJob"]


def test_every_file_is_used_and_every_resource_fits_its_schema(overlay: list[dict[str, Any]]) -> None:
    for resource in overlay:
        assert errors(resource) == [], resource["metadata"]["name"]
    kinds = {r["kind"] for r in overlay}
    assert {"Namespace", "ServiceAccount", "RayCluster", "RayJob", "NetworkPolicy", "Service"} <= kinds
    named = "\n".join(f.read_text() for f in FOLDER.rglob("kustomization.yaml"))
    for file in FOLDER.rglob("*.yaml"):
        assert file.name in named or file.name in ("kustomization.yaml", "s3-secret.template.yaml"), file


def test_a_wrong_field_is_found(overlay: list[dict[str, Any]]) -> None:
    (cluster,) = (r for r in overlay if r["kind"] == "RayCluster")
    cluster["spec"]["workerGroupSpecs"][0]["maxReplica"] = 3
    cluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]["imagePullPolice"] = "Always"
    found = " ".join(errors(cluster))
    assert "maxReplica" in found and "imagePullPolice" in found


def test_a_patch_without_a_target_is_found(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("apiVersion: v1\nkind: Service\nmetadata: {name: a}\n")
    patch = "patches: [{target: {kind: Service, name: b}, patch: '[{op: add, path: /spec, value: {}}]'}]"
    (tmp_path / "kustomization.yaml").write_text(f"resources: [a.yaml]\n{patch}\n")
    with pytest.raises(ValueError, match="'b'"):
        kustomize.build(tmp_path)


@pytest.mark.skipif(not shutil.which("kubectl"), reason="no kubectl here")
@pytest.mark.parametrize("name", OVERLAYS)
def test_kubectl_makes_the_same(name: str) -> None:
    folder = FOLDER / "overlays" / name
    made = subprocess.run(["kubectl", "kustomize", folder], capture_output=True, text=True, check=True).stdout
    key = lambda r: (r["kind"], r["metadata"]["name"])  # noqa: E731
    assert sorted(yaml.safe_load_all(made), key=key) == sorted(kustomize.build(folder), key=key)


def test_clusters_keep_what_kuberay_demands(overlay: list[dict[str, Any]]) -> None:
    """ValidateRayClusterSpec in ray-operator/controllers/ray/utils/validation.go."""
    for spec in specs(overlay):
        assert spec["authOptions"] == {"mode": "token"}
        assert spec["rayVersion"] == ray.__version__  # without it token authentication is refused
        assert spec["enableInTreeAutoscaling"] and spec["autoscalerOptions"]["version"] == "v2"
        assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
        assert spec["headGroupSpec"]["serviceType"] == "ClusterIP"
        assert not spec["headGroupSpec"].get("enableIngress")
        for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
            pod = group["template"]["spec"]
            assert pod["restartPolicy"] == "Never"  # autoscaler v2 wants it
            assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == 1000
            (container,) = pod["containers"]
            assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
            assert ":" in container["image"] and not container["image"].endswith(":latest")
            assert container["resources"]["requests"]["memory"] == container["resources"]["limits"]["memory"]
        for group in spec["workerGroupSpecs"]:
            assert group["minReplicas"] <= group["replicas"] <= group["maxReplicas"]
            assert group["template"]["spec"]["automountServiceAccountToken"] is False


def test_gpu_workers_start_from_zero_and_spot_comes_first() -> None:
    for spec in specs(kustomize.build(FOLDER / "overlays" / "gpu")):
        groups = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
        spot, demand = groups["gpu-spot"], groups["gpu"]
        assert spot["minReplicas"] == demand["minReplicas"] == 0
        assert spot["priority"] > demand["priority"]
        pods = [group["template"]["spec"] for group in (spot, demand)]
        markets = [pod.pop("nodeSelector")["karpenter.sh/capacity-type"] for pod in pods]
        assert markets == ["spot", "on-demand"]
        assert pods[0] == pods[1]  # else the market would not be what decides


def test_jobs_end(overlay: list[dict[str, Any]]) -> None:
    jobs = {r["metadata"]["name"]: r["spec"] for r in overlay if r["kind"] == "RayJob"}
    assert jobs.keys() == {"synthesize", "train"}
    for spec in jobs.values():
        assert spec["backoffLimit"] > 0 and spec["activeDeadlineSeconds"] and spec["ttlSecondsAfterFinished"]
        # KubeRay suspends only jobs that take their cluster with them.
        assert spec["suspend"] and spec["shutdownAfterJobFinishes"]


def test_network_policy_lets_in_ray_the_operator_and_prometheus(overlay: list[dict[str, Any]]) -> None:
    (policy,) = (r["spec"] for r in overlay if r["kind"] == "NetworkPolicy")
    assert sorted(policy["policyTypes"]) == ["Egress", "Ingress"]
    ports = [[p["port"] for p in rule.get("ports", [])] for rule in policy["ingress"]]
    assert ports == [[], [8265], [8080]]
    # A rule without `from` would let everyone in, one with a bare address those outside.
    peers = [peer for rule in policy["ingress"] for peer in rule["from"]]
    assert len(peers) == 3 and not any("ipBlock" in peer for peer in peers)


def test_metrics_are_found(overlay: list[dict[str, Any]]) -> None:
    service = next(r for r in overlay if r["kind"] == "Service")
    names = {port["name"]: port["targetPort"] for port in service["spec"]["ports"]}
    for monitor in (r for r in overlay if r["kind"] == "ServiceMonitor"):
        assert monitor["spec"]["selector"]["matchLabels"] == service["metadata"]["labels"]
        assert [names[e["port"]] for e in monitor["spec"]["endpoints"]] == [8080]


def test_no_secret_is_in_a_file(overlay: list[dict[str, Any]]) -> None:
    assert not any(r["kind"] == "Secret" for r in overlay)
    template = yaml.safe_load((FOLDER / "base" / "s3-secret.template.yaml").read_text())
    assert errors(template) == [] and set(template["stringData"].values()) == {""}
    assert template["metadata"]["name"] == "syncir-s3"
    for spec in specs(overlay):
        for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
            source = group["template"]["spec"]["containers"][0]["envFrom"][0]["secretRef"]
            assert source == {"name": "syncir-s3", "optional": True}
