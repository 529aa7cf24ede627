"""What sharding takes before there is a machine: memory a device and traffic a step, by TorchRec's own planner."""

from itertools import product

import pandas as pd
from torch import nn
from torchrec.distributed.planner.types import (
    KernelConfig,
    PlannerError,
    ShardingOption,
    Stats,
    TopologyFactory,
    TrainerConfig,
)

from ..models import options_of
from ..schema import Field
from .tables import collection, planner, sharder

# Ids of the fields that grow with the data, as published (kuairand.com); the fields of a few hundred ids are left out.
SIZES: dict[str, dict[str, int]] = {
    "kuairand-1k": {"user": 1_000, "item": 4_369_953, "domain": 5},
    "kuairand-27k": {"user": 27_285, "item": 32_038_725, "domain": 5},
    "a billion ids": {"user": 100_000_000, "item": 900_000_000, "domain": 5},
}
DEVICES = (1, 8, 64)
HOST = 8  # devices in one host
HBM = 80 << 30  # bytes of a device
COLUMNS = ["data", "devices", "layer", "field", "ids", "where", "GiB a device", "MiB a step", "GiB unsharded"]


class Chosen(Stats):
    """Keeps what the planner has chosen: TorchRec hands it to its Stats alone."""

    def __init__(self) -> None:
        self.options: list[ShardingOption] = []

    def log(self, *args, best_plan: list[ShardingOption], **kwargs) -> None:
        """Called by the planner, once it has a plan."""
        self.options = best_plan


def chosen(tables: nn.Module, devices: int, batch_size: int) -> dict[tuple[str, str], ShardingOption]:
    """Where TorchRec's planner puts each layer's tables on so many GPUs; nothing, where they do not fit."""
    topology = TopologyFactory.create_topology(
        TrainerConfig(devices, min(devices, HOST), hbm_cap_bytes=HBM), kernel_config=KernelConfig(compute_device="cuda")
    )
    kept = Chosen()
    try:
        planner(tables, topology, batch_size // devices, stats=kept).plan(tables, [sharder(lr=1)])
    except PlannerError:
        return {}
    return {(option.path, option.name): option for option in kept.options}


def traffic(width: int, devices: int, batch_size: int) -> float:
    """Bytes a step that a device receives, on the mean, for one field: an id out, a vector back, its gradient out.

    Each of its batch_size / devices rows is looked up elsewhere with the chance (devices − 1) / devices, whether a
    table lies whole on one device or by rows on all. Ids take 8 bytes.
    """
    return batch_size / devices * (devices - 1) / devices * (8 + 2 * 4 * width)


def plan_rows(name: str, sizes: dict[str, int], devices: int, batch_size: int) -> list[tuple]:
    """One row of COLUMNS for each field of Crocodile's two layers: the sets', and the prior's of its gate."""
    fields, rows = [Field(field, size + 1) for field, size in sizes.items()], []
    usual = options_of("crocodile")
    layers = {"embedding": usual["sets"] * usual["dim"], "prior": usual["dim"]}
    tables = nn.ModuleDict({layer: collection(fields, width) for layer, width in layers.items()})
    options = chosen(tables, devices, batch_size)
    for (layer, width), (i, field) in product(layers.items(), enumerate(fields)):
        option = options.get((layer, f"field{i}"))
        where = "does not fit" if option is None else "by rows" if len(option.shards) > 1 else "whole on one"
        largest = float("nan") if option is None else max(shard.storage.hbm for shard in option.shards) / 2**30
        sent = traffic(width, devices, batch_size) / 2**20
        whole = 3 * 4 * field.size * width / 2**30  # beside it Adam's two means, on every device
        rows.append((name, devices, layer, field.name, field.size, where, largest, sent, whole))
    return rows


def plans(batch_size: int) -> pd.DataFrame:
    """The plans of every size in SIZES on every number of DEVICES, tidy: COLUMNS."""
    rows = [row for name, sizes in SIZES.items() for n in DEVICES for row in plan_rows(name, sizes, n, batch_size)]
    return pd.DataFrame(rows, columns=COLUMNS)
