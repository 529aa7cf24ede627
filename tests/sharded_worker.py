"""One of the processes that tests/test_sharded.py starts: `step FOLDER`, or `train FOLDER [STOP]`."""

import json
import sys
from pathlib import Path

import numpy as np
import torch
import torch.distributed as dist
from accelerate import Accelerator

from croco_lib import evaluate, load
from croco_lib.batches import feed
from croco_lib.losses import sample_objective
from croco_lib.optimizers import adam
from croco_lib.options import TrainOptions
from croco_lib.schema import Bag, Field
from croco_lib.sharded import checkpoint
from croco_lib.sharded.tables import build, layers_of
from croco_lib.sharded.together import start
from croco_lib.training import train, train_step

LR, BATCH = 0.003, 1_000


def bags(data):
    """The data with a multi-valued field in place of the users' groups: bag b holds b's neighbours, weighted."""
    size = data.fields[1].size
    ids = np.stack([np.arange(size), (np.arange(size) + 1) % size], 1).astype(np.int32)  # [B, 2]
    bag = Bag(np.arange(size + 1) * 2, ids.ravel(), np.tile(np.float32([3, 1]), size))
    object.__setattr__(data, "fields", (data.fields[0], Field("group", size, bag=bag), *data.fields[2:]))
    return data


def step(folder: Path) -> None:
    """One step from the weights in the folder; every weight after it, and each row's sum of squares, go there too."""
    data, accelerator = bags(load("world", rows=20_000, users=300, items=400)), Accelerator(cpu=True)
    model = build("crocodile", data, lr=LR, batch_size=BATCH, alpha=0.0, sets=2)
    checkpoint.load_weights(model, folder)
    wrapped, optimizer = accelerator.prepare(model, *adam(model, False, LR))
    batch = next(feed(data.train, BATCH, 0, 0, 10, torch.device("cpu")))
    share = batch.share(accelerator.process_index, accelerator.num_processes)
    train_step(wrapped, [optimizer], sample_objective, share, accelerator.backward)
    after = folder / f"after-{accelerator.num_processes}"
    if accelerator.is_main_process:
        after.mkdir()
    accelerator.wait_for_everyone()
    checkpoint.save_weights(model, after)
    for path, layer in layers_of(model).items():
        state = layer.tables.fused_optimizer.state_dict()["state"]
        for i, name in enumerate(layer.names):
            (sums,) = (t for key, t in state[f"embeddings.{name}.weight"].items() if key.endswith("momentum1"))
            for part in sums.local_shards():
                start_at = layer.starts[name] + part.metadata.shard_offsets[0]
                np.save(after / f"{path}.{start_at:06}.{i}.npy", part.tensor.numpy())


def training(folder: Path, stop: int) -> None:
    """Train with evaluations every five steps, stopped hard at step `stop`; the metrics go to metrics.json."""
    data = load("world", rows=20_000, users=300, items=400)
    model = build("crocodile", data, lr=LR, batch_size=BATCH, sets=2)

    def watch(step: int, model: torch.nn.Module) -> None:
        if step == stop:
            raise KeyboardInterrupt

    options = TrainOptions(epochs=2, batch_size=BATCH, lr=LR, eval_every=5, patience=99, lazy=False)
    try:
        run = train(model, data, options, folder, False, watch, checkpoint)
    except KeyboardInterrupt:
        return
    table = evaluate(run.model, data.test).query("domain == 'all'").set_index("metric").value
    if dist.get_rank() == 0:
        about = {"best_step": run.best_step, "rows": len(data.test), "valid": run.history.to_dict("list")}
        (folder / "metrics.json").write_text(json.dumps({**table, **about}))


if __name__ == "__main__":
    torch.set_num_threads(1)
    start()
    if sys.argv[1] == "step":
        step(Path(sys.argv[2]))
    else:
        training(Path(sys.argv[2]), int(sys.argv[3]) if len(sys.argv) > 3 else -1)
    dist.barrier()
    dist.destroy_process_group()
