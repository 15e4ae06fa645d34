"""Kustomize, as far as cluster/ uses it: resources, config maps, images, patches, replacements, namespace."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

KNOWN = {"apiVersion", "kind", "namespace", "resources", "images", "patches", "replacements"}
KNOWN |= {"configMapGenerator", "generatorOptions"}
Resource = dict[str, Any]


def build(folder: Path) -> list[Resource]:
    """The resources of a kustomization.

    Raises:
        ValueError: a patch or a replacement has no target, or a feature is not known here.
        OSError: a file it names is not there.
    """
    spec = yaml.safe_load((folder / "kustomization.yaml").read_text())
    if unknown := spec.keys() - KNOWN:
        raise ValueError(f"{folder}: {unknown} is not known to this test's Kustomize")
    resources: list[Resource] = []
    for made in spec.get("configMapGenerator", []):
        resources.append(_config_map(folder, made, spec["generatorOptions"]))
    for name in spec.get("resources", []):
        at = folder / name
        resources += build(at) if at.is_dir() else list(yaml.safe_load_all(at.read_text()))
    for patch in spec.get("patches", []):
        text = (folder / patch["path"]).read_text() if "path" in patch else patch["patch"]
        change = yaml.safe_load(text)
        if isinstance(change, list):
            for target in _targets(resources, patch["target"]):
                for step in change:
                    _step(target, step)
        elif change.get("$patch") == "delete":
            for target in _targets(resources, {"kind": change["kind"], "name": change["metadata"]["name"]}):
                resources.remove(target)
        else:
            raise ValueError(f"{folder}: a merge patch is not known to this test's Kustomize")
    for resource in resources:
        if resource["kind"] != "Namespace" and "namespace" in spec:
            resource["metadata"]["namespace"] = spec["namespace"]
        for image in spec.get("images", []):
            _walk(resource, lambda container, image=image: _image(container, image))
    for replacement in spec.get("replacements", []):
        (source,) = _targets(resources, replacement["source"])
        for step in replacement["source"]["fieldPath"].split("."):
            source = source[step]
        for target in replacement["targets"]:
            for resource in _targets(resources, target["select"]):
                for path in target["fieldPaths"]:
                    *way, last = path.split(".")
                    place = resource
                    for step in way:
                        place = place[step]
                    place[last] = copy.deepcopy(source)
    return resources


def _config_map(folder: Path, made: Resource, options: Resource) -> Resource:
    if not options["disableNameSuffixHash"] or made.keys() != {"name", "files"}:
        raise ValueError(f"{folder}: only plain files under a plain name are known to this test's Kustomize")
    data = {name: (folder / name).read_text() for name in made["files"]}
    metadata = {"name": made["name"], "labels": options.get("labels", {})}
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": data}


def _targets(resources: list[Resource], wanted: Resource) -> list[Resource]:
    found = [
        r for r in resources if r["kind"] == wanted["kind"] and wanted.get("name") in (None, r["metadata"]["name"])
    ]
    if not found:
        raise ValueError(f"nothing is of kind and name {wanted}")
    return found


def _step(resource: Resource, step: Resource) -> None:
    """One operation of a JSON patch (RFC 6902)."""
    *way, last = step["path"].strip("/").split("/")
    place: Any = resource
    for name in way:
        place = place[int(name) if isinstance(place, list) else name]
    value = copy.deepcopy(step["value"])
    if isinstance(place, list):
        if last != "-" or step["op"] != "add":
            raise ValueError(f"{step['path']}: only `add` to the end of a list is known here")
        place.append(value)
    else:
        if step["op"] == "replace" and last not in place:
            raise ValueError(f"{step['path']}: there is nothing to replace")
        place[last] = value


def _walk(value: Any, visit: Callable[[Resource], None]) -> None:
    """Visit every container."""
    if isinstance(value, dict):
        for container in value.get("containers", []):
            visit(container)
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            _walk(item, visit)


def _image(container: Resource, image: Resource) -> None:
    name, _, tag = container["image"].partition(":")
    if name == image["name"]:
        name, tag = image.get("newName", name), image.get("newTag", tag)
        container["image"] = f"{name}:{tag}" if tag else name
