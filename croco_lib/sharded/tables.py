"""The embedding layer over tables that no process holds whole: TorchRec looks up, exchanges and trains their rows.

Each field's table is [V_f, M·e], the M sets side by side, as in `layers.MultiEmbedding`. Its rows lie on one process or
are spread over all, as TorchRec's planner decides; vectors travel to who looks them up, and their gradients back.
"""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.distributed as dist
from accelerate import PartialState
from fbgemm_gpu.split_embedding_configs import EmbOptimType
from torch import Tensor, nn
from torchrec import EmbeddingCollection, EmbeddingConfig, KeyedJaggedTensor
from torchrec.distributed.embedding import EmbeddingCollectionSharder, ShardedEmbeddingCollection
from torchrec.distributed.embedding_types import EmbeddingComputeKernel
from torchrec.distributed.planner import EmbeddingShardingPlanner, ParameterConstraints, Topology
from torchrec.distributed.planner.storage_reservations import FixedPercentageStorageReservation
from torchrec.distributed.planner.types import (
    HardwareConfig,
    KernelConfig,
    PlannerError,
    TopologyFactory,
    TrainerConfig,
)
from torchrec.distributed.types import ShardingEnv, ShardingPlan, ShardingType

from ..errors import CrocoError
from ..layers import INIT_STD, MultiEmbedding, sets_first
from ..models import MultiDomainModel
from ..models import build as build_whole
from ..schema import Field, Layout, MultiDomainData
from .together import gathered, on_every_process

# The tables' learning rate is so many times Adam's [ours], for row-wise Adagrad's steps shrink and Adam's do not. On a
# made world of 60,000 rows, six epochs, 1, 3, 10 and 30 gave AUCs of .773, .781, .783 and .790; Adam, unsharded, .790.
LR_RATIO = 30
DRAWN = 1 << 14  # rows whose first values are drawn together
OPTIMIZER = "row-wise Adagrad"  # the one that TorchRec has on every device; its state is one number a row


class Shard(NamedTuple):
    """The rows of a layer's table that this process holds: from row `start` of the whole table on, `rows` [n, M·e]."""

    start: int
    rows: Tensor


@dataclass(frozen=True)
class Sketch(Layout):
    """Fields and domains, and nothing else."""

    fields: tuple[Field, ...]
    domains: tuple[str, ...]


class ShardedEmbedding(nn.Module):
    """`MultiEmbedding` with sharded tables: int [N, F] ids → [M, N, F·e]. Every process must call it equally often.

    The tables are no parameters of this module: their optimiser is fused into the backward pass.
    """

    def __init__(self, fields: Sequence[Field], sets: int, dim: int, tables: ShardedEmbeddingCollection):
        super().__init__()
        self.fields, self.sets, self.dim = tuple(fields), sets, dim
        self.bags = {i: field.bag for i, field in enumerate(fields) if field.bag is not None}
        self.names = [f"field{i}" for i in range(len(fields))]  # a field's own name may hold what TorchRec forbids
        # In a tuple, so that neither Adam, DistributedDataParallel nor state_dict takes the tables for its own.
        self.held = (tables,)
        self.starts = dict(zip(self.names, np.cumsum([0] + [field.size for field in fields]).tolist(), strict=False))

    @property
    def shape(self) -> tuple[int, int]:
        """Of the table over all fields, [V, M·e]."""
        return sum(field.size for field in self.fields), self.sets * self.dim

    @property
    def tables(self) -> ShardedEmbeddingCollection:
        """TorchRec's sharded tables, one a field."""
        return self.held[0]

    def forward(self, features: Tensor) -> Tensor:
        """features int [N, F] → [M, N, F·e]."""
        values, lengths, bags = list(features.unbind(1)), [torch.ones_like(features[:, 0])] * features.shape[1], {}
        for i, bag in self.bags.items():
            read = bag.read(features[:, i].cpu().numpy())
            values[i], start, weight = (torch.from_numpy(a).to(features.device) for a in read)
            lengths[i] = torch.diff(start, append=start.new_tensor([len(weight)])).to(features.dtype)  # [N]
            bags[i] = lengths[i], weight
        ids = KeyedJaggedTensor(self.names, torch.cat(values).long(), lengths=torch.cat(lengths).int())
        vectors = self.tables(ids)
        columns = [vectors[name].values() for name in self.names]  # each [N, M·e], or [V, M·e] of V values in bags
        for i, (size, weight) in bags.items():
            # [V], the row of each value
            row = torch.arange(len(size), device=size.device).repeat_interleave(size.long())
            weighted = columns[i] * weight[:, None]
            columns[i] = weighted.new_zeros(len(size), weighted.shape[1]).index_add(0, row, weighted)  # [N, M·e]
        return sets_first(torch.stack(columns, 1), self.sets)

    def shards(self) -> Iterator[Shard]:
        """What this process holds of the table over all fields; the rows are the weights themselves, not copies."""
        weights = self.tables.state_dict()
        for name in self.names:
            for part in weights[f"embeddings.{name}.weight"].local_shards():
                yield Shard(self.starts[name] + part.metadata.shard_offsets[0], part.tensor.detach())

    def draw(self, seed: int, layer: int) -> None:
        """First values, normal with INIT_STD. A row's depend on the seed, the layer and the row's number alone."""
        for start, rows in self.shards():
            for block in range(start // DRAWN, -(-(start + len(rows)) // DRAWN)):
                state = int(np.random.SeedSequence([seed, layer, block]).generate_state(1)[0])
                drawn = torch.empty(DRAWN, rows.shape[1])
                drawn.normal_(std=INIT_STD, generator=torch.Generator().manual_seed(state))
                low, high = max(start, block * DRAWN), min(start + len(rows), (block + 1) * DRAWN)
                rows[low - start : high - start] = drawn[low - block * DRAWN : high - block * DRAWN]


def collection(fields: Sequence[Field], width: int) -> EmbeddingCollection:
    """One table [V_f, width] for each field, without memory yet. Raises CrocoError for a width that FBGEMM lacks."""
    if width % 4:
        raise CrocoError(f"--shard: embedding sets times dim must be a multiple of 4, not {width}; choose another dim.")
    tables = [
        EmbeddingConfig(name=f"field{i}", feature_names=[f"field{i}"], embedding_dim=width, num_embeddings=field.size)
        for i, field in enumerate(fields)
    ]
    return EmbeddingCollection(tables=tables, device=torch.device("meta"))


def planner(tables: nn.Module, topology: Topology, batch_size: int, **options) -> EmbeddingShardingPlanner:
    """TorchRec's planner for the collections in this module, each table to lie whole on one device or by rows on all.

    `batch_size` counts the rows of one process; further options are those of EmbeddingShardingPlanner. An eighth of
    each device stays free for the rest of the model and for what a batch takes.
    """
    allowed = ParameterConstraints(
        sharding_types=[ShardingType.TABLE_WISE.value, ShardingType.ROW_WISE.value],
        compute_kernels=[EmbeddingComputeKernel.FUSED.value],
    )
    parts = [part for part in tables.modules() if isinstance(part, EmbeddingCollection)]
    constraints = {config.name: allowed for part in parts for config in part.embedding_configs()}
    free = FixedPercentageStorageReservation(percentage=0.125)
    return EmbeddingShardingPlanner(
        topology, batch_size, constraints=constraints, storage_reservation=free, debug=False, **options
    )


def sharder(lr: float) -> EmbeddingCollectionSharder:
    """What shards the tables and fuses their optimiser."""
    return EmbeddingCollectionSharder(
        fused_params={"optimizer": EmbOptimType.EXACT_ROWWISE_ADAGRAD, "learning_rate": lr, "eps": 1e-8}
    )


def shard(tables: nn.ModuleDict, lr: float, batch_size: int) -> list[ShardedEmbeddingCollection]:
    """The collections on the devices of the processes, planned together. Raises CrocoError where they do not fit."""
    world, device = dist.get_world_size(), PartialState().device
    device = device if device.type == "cuda" else torch.device("cpu")  # FBGEMM knows no "cpu:1"
    topology = TopologyFactory.create_topology(
        TrainerConfig(world, int(os.environ.get("LOCAL_WORLD_SIZE", world))),
        HardwareConfig(hbm_cap_bytes=torch.cuda.mem_get_info()[1] if device.type == "cuda" else None),
        KernelConfig(compute_device=device.type),
    )

    def planned() -> ShardingPlan | None:
        if dist.get_rank():
            return None
        try:
            return planner(tables, topology, max(1, batch_size // world)).plan(tables, [sharder(lr)])
        except PlannerError as error:
            raise CrocoError(f"--shard: the tables do not fit {world} devices ({error.error_type.value}).") from error

    # TorchRec's own `collective_plan` leaves the others waiting when it fails.
    plan = gathered(on_every_process(planned))[0]
    env = ShardingEnv.from_process_group(dist.group.WORLD)
    return [sharder(lr).shard(part, plan.plan[name], env, device) for name, part in tables.items()]


def build(
    name: str, data: MultiDomainData, *, seed: int = 0, lr: float, batch_size: int, **options
) -> MultiDomainModel:
    """The model of this name as `models.build` wires it, its tables sharded over the processes.

    `lr` is Adam's of the training to come and `batch_size` that of all processes together. The first values depend on
    `seed` alone, whatever the number of processes; those of the tables are other draws than `models.build` makes.
    Raises CrocoError as that does, and for tables that cannot be sharded.
    """
    # Wired over fields of a single id, so that no process ever makes a whole table.
    fields = {field.name: field for field in data.fields}
    sketch = Sketch(tuple(Field(field.name, 1, field.role) for field in data.fields), data.domains)
    model = build_whole(name, sketch, seed=seed, **options)
    model.made_as(model.name, model.options, model.seed, data.fields)
    layers = [(path, part) for path, part in model.named_modules() if isinstance(part, MultiEmbedding)]
    real = [[fields[field.name] for field in part.fields] for _, part in layers]
    tables = {str(i): collection(real[i], part.sets * part.dim) for i, (_, part) in enumerate(layers)}
    for i, sharded in enumerate(shard(nn.ModuleDict(tables), lr * LR_RATIO, batch_size)):
        path, part = layers[i]
        layer = ShardedEmbedding(real[i], part.sets, part.dim, sharded)
        layer.draw(seed, i)
        model.set_submodule(path, layer)
    return model


def layers_of(model: nn.Module) -> dict[str, ShardedEmbedding]:
    """The sharded layers of a model by their paths in it."""
    return {path: part for path, part in model.named_modules() if isinstance(part, ShardedEmbedding)}
