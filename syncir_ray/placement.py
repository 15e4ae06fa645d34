"""Where the models run: what the configuration asks for, fitted to the cluster that is there."""

from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from syncir_ray.config import Pool

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

C = TypeVar("C", bound="DataclassInstance")
"""The configuration of a run: sections by stage, some of which have a `pool`."""


@dataclass(frozen=True)
class Place(Generic[C]):
    """The resources of a run. CPU shares are fractions of Ray's logical CPUs."""

    config: C
    gpu: bool
    decode: float
    """CPUs of one task that reads or decodes."""
    light: float
    """CPUs of one task that writes or plans: it mostly waits."""
    cores: int
    note: str
    """One line for the user."""

    def threads(self, pool: Pool) -> int:
        """Threads of one actor: what it reserves beside a GPU, its share of the machine without one."""
        return max(1, round(pool.cpus) if pool.gpus else max(self.cores // pool.max, int(pool.cpus)))


def pools_of(config: Any) -> dict[str, Pool]:
    """The pools of a configuration, by stage, as they ask for GPUs."""
    sections = {f.name: getattr(config, f.name) for f in fields(config)}
    pools = {name: section.pool for name, section in sections.items() if hasattr(section, "pool")}
    if getattr(sections.get("queries"), "engine", "") == "openai":
        pools["queries"] = replace(pools["queries"], gpus=0.0)  # it waits for a server that has the GPU
    return pools


def place(config: C, cpus: float, gpus: float, node_cpus: float, grows: bool = False) -> Place[C]:
    """Fit the pools to a cluster of `cpus` and `gpus`, whose largest node has `node_cpus`.

    Where it has no GPU but `grows` nodes that have one, a stage asks for all of its actors at its start, for each
    step by which Ray Data would find out that it wants more would take the ten minutes that a node takes. They go
    with the stage, and nodes without work are the autoscaler's to send away.

    Pools that ask for no GPU stay as they are, on a node that can hold them. Without a GPU in the cluster, each
    of the other models gets one single-threaded actor a core: on a few cores that keeps all of them busy
    where threads of one actor would wait for each other whenever a decoder takes a core. The language model and
    the pair search keep one actor with all threads: one engine batches better than two.
    """
    pools = pools_of(config)
    if (gpus or grows) and any(pool.gpus for pool in pools.values()):
        # A decode task works a core; a write waits for the storage.
        note = f"{gpus:g} GPU(s), {cpus:g} CPUs"
        if grows:
            note = f"no GPU yet, {cpus:g} CPUs: the cluster brings nodes up as a stage asks for them"
            pools = {name: replace(pool, min=pool.max) if pool.gpus else pool for name, pool in pools.items()}
        fitted = {name: pool if pool.gpus else _whole_node(pool, node_cpus) for name, pool in pools.items()}
        return Place(_with(config, fitted), True, 1.0, 0.25, int(node_cpus), note)
    # Reserved for models: all but a share for the decoders and writers that feed them, which are short.
    share = max(cpus - 1, 0.6 * cpus)
    fitted = {}
    for name, pool in pools.items():
        if not pool.gpus and pool.cpus <= min(share, 0.6 * node_cpus):
            fitted[name] = pool
            continue
        actors = 1 if name in ("queries", "pairs") else max(1, min(pool.max, int(cpus)))
        room = 0.6 * node_cpus if actors == 1 else max(node_cpus - 1, 0.6 * node_cpus)  # of one node
        each = int(100 * min(share / actors, room)) / 100
        fitted[name] = replace(pool, min=actors, max=actors, gpus=0.0, cpus=each)
    light = min(0.1, cpus / 20)
    return Place(
        _with(config, fitted),
        False,
        decode=min(0.3, 0.15 * cpus),
        light=light,
        cores=int(node_cpus),
        note=f"no GPU in the cluster: every model runs on the CPU ({cpus:g} cores)",
    )


def _whole_node(pool: Pool, node_cpus: float) -> Pool:
    return replace(pool, cpus=min(pool.cpus, max(1.0, node_cpus - 1)))


def _with(config: C, pools: dict[str, Pool]) -> C:
    return replace(config, **{name: replace(getattr(config, name), pool=pool) for name, pool in pools.items()})
