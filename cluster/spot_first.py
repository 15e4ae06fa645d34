"""Spot first, on-demand where spot is refused: how Ray's autoscaler ranks the node types of aws.yaml.

By itself the autoscaler asks for the same type for ever when EC2 has no spot capacity. This is its plug-in for the
ranking (RAY_AUTOSCALER_UTILIZATION_SCORER, of autoscaler v1): first what the demand fits best, as Ray has it, so
that CPU work goes to no GPU node; then a type that was not refused in the last 30 minutes (Ray's own memory of
launch failures); then spot. A spot type and its on-demand twin hold the same resources, so that they fit alike.
"""

from typing import Any

from ray.autoscaler._private.resource_demand_scheduler import _default_utilization_scorer


def score(
    node_resources: dict[str, Any],
    resources: list[dict[str, Any]],
    node_type: str,
    *,
    node_availability_summary: Any,
) -> tuple[Any, ...] | None:
    """A node type's rank for a demand, the highest wins; None where nothing of it fits."""
    fit = _default_utilization_scorer(
        node_resources, resources, node_type, node_availability_summary=node_availability_summary
    )
    if fit is None:
        return None
    record = node_availability_summary.node_availabilities.get(node_type)
    return (*fit, record is None or record.is_available, node_type.endswith("-spot"))
