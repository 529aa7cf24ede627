"""Training and scoring speed beside a peer's, torch-rechub, on the same rows: its own models, a tower a domain. [ours]

torch-rechub (PyPI) has multi-task models, so each domain is a task: all towers run on all rows, and a row's loss is
that of its own domain's. Its layers hold a batch normalisation that ours have not, and it has no STAR. Embedding size,
widths of experts and towers, numbers of experts, batch, optimiser and learning rate are those of our defaults.
"""

import time
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..batches import feed, steps_per_epoch
from ..evaluation import predict
from ..losses import sample_objective
from ..metrics import grouped_auc
from ..models import build, options_of
from ..optimizers import adam
from ..options import TrainOptions
from ..schema import MultiDomainData, Split
from ..training import train_step

NAMES = ("shared-bottom", "mmoe", "ple")
BATCH, LR = TrainOptions.batch_size, TrainOptions.lr


def peer_model(name: str, data: MultiDomainData) -> nn.Module:
    """torch-rechub's model of this name with the sizes of our default one: columns by name → probabilities [N, S]."""
    from torch_rechub.basic.features import SparseFeature
    from torch_rechub.models.multi_task import MMOE, PLE, SharedBottom

    options, S = options_of(name), len(data.domains)
    features = [SparseFeature(f.name, vocab_size=f.size, embed_dim=options["dim"]) for f in data.fields]
    tasks, expert = ["classification"] * S, {"dims": list(options["expert"])}
    towers = [{"dims": list(options["tower"])}] * S
    if name == "shared-bottom":
        return SharedBottom(features, tasks, expert, towers)
    if name == "mmoe":
        return MMOE(features, tasks, options["experts"], expert, towers)
    return PLE(features, tasks, options["levels"], options["per_stream"], options["per_stream"], expert, towers)


def columns(data: MultiDomainData, split: Split) -> dict[str, np.ndarray]:
    """The split as the peer takes it: a column [N] a field, the domain's number, and the label."""
    named = {f.name: np.ascontiguousarray(split.features[:, i]) for i, f in enumerate(data.fields)}
    return {**named, "task": split.domain, "label": split.label}


def as_shipped(data: MultiDomainData, seed: int) -> Iterator[dict[str, Tensor]]:
    """Batches from the peer's own generator, which fetches row by row."""
    from torch_rechub.utils.data import DataGenerator

    x = columns(data, data.train)
    torch.manual_seed(seed)
    loader, *_ = DataGenerator(x, x["label"]).generate_dataloader(x, x["label"], x, x["label"], batch_size=BATCH)
    while True:  # not itertools.cycle, which would keep the first epoch's batches and fetch nothing after it
        for rows, _ in loader:
            if len(rows["label"]) == BATCH:
                yield rows


def at_once(data: MultiDomainData, seed: int) -> Iterator[dict[str, Tensor]]:
    """The same batches cut from columns that are shuffled as a whole, epoch after epoch."""
    x = {name: torch.from_numpy(np.array(column)) for name, column in columns(data, data.train).items()}
    drawn = torch.Generator().manual_seed(seed)
    while True:
        order = torch.randperm(len(data.train), generator=drawn)
        for rows in order.split(BATCH):
            if len(rows) == BATCH:
                yield {name: column[rows] for name, column in x.items()}


def trainer(name: str, data: MultiDomainData) -> tuple[Callable[[], object], Callable[[Split], np.ndarray]]:
    """Our model's training step, the fetch included, and its scores of a split."""
    model = build(name, data)
    optimizers = adam(model, False, LR)
    batches = feed(data.train, BATCH, 0, 0, steps_per_epoch(len(data.train), BATCH, 1), torch.device("cpu"))
    return lambda: train_step(model, optimizers, sample_objective, next(batches)), partial(predict, model)


def peer_trainer(
    name: str, data: MultiDomainData, batches: Iterator[dict[str, Tensor]]
) -> tuple[Callable[[], object], Callable[[Split], np.ndarray]]:
    """The peer's training step, as its `MTLTrainer` does it on a row's own task, and its scores of a split."""
    torch.manual_seed(0)
    model = peer_model(name, data)
    optimizer = torch.optim.Adam(model.parameters(), lr=LR)

    def step() -> None:
        rows = next(batches)
        own = model.train()(rows).gather(1, rows["task"][:, None]).squeeze(1)  # [B]
        model.zero_grad()
        F.binary_cross_entropy(own, rows["label"]).backward()
        optimizer.step()

    def score(split: Split) -> np.ndarray:
        rows = {name: torch.from_numpy(column) for name, column in columns(data, split).items()}
        with torch.inference_mode():
            return model.eval()(rows).gather(1, rows["task"][:, None]).squeeze(1).numpy()

    return step, score


def seconds(work: Callable[[], object], times: int) -> float:
    """Seconds that so many calls take."""
    start = time.perf_counter()
    for _ in range(times):
        work()
    return time.perf_counter() - start


def measure_peer(
    data: MultiDomainData, steps: int = 20, rounds: int = 9, threads: tuple[int, ...] = (1, 2)
) -> Iterator[tuple[str, str, str, float]]:
    """Training and scoring, ours and theirs in turn, as (table, row, column, value).

    In each round each trains on `steps` batches and scores the test rows. Speeds are medians of the rounds; of the
    ratios within a round the median and the range are given. The test AUC is that after one epoch more.
    """
    sides = ("ours", "theirs, fed at once", "theirs as shipped")
    for name in NAMES:
        feeds = at_once(data, 0), as_shipped(data, 0)
        pairs = [trainer(name, data), *(peer_trainer(name, data, batches) for batches in feeds)]
        for count in threads:
            torch.set_num_threads(count)
            row = f"{name}, {count} thread{'s' if count > 1 else ''}"
            taken = np.array([[seconds(step, steps) for step, _ in pairs] for _ in range(rounds)])  # [rounds, sides]
            scored = np.array([[seconds(partial(score, data.test), 1) for _, score in pairs] for _ in range(rounds)])
            for i, side in enumerate(sides):
                yield "peer: training", row, f"{side}, rows a second", steps * BATCH / float(np.median(taken[:, i]))
            for i, side in enumerate(("ours", "theirs")):
                yield "peer: scoring", row, f"{side}, rows a second", len(data.test) / float(np.median(scored[:, i]))
            for i, side in enumerate(sides[1:], 1):
                ratio = taken[:, i] / taken[:, 0]
                for what, value in (("median", np.median(ratio)), ("lowest", ratio.min()), ("highest", ratio.max())):
                    yield "peer: how many times as fast as theirs", row, f"{side}, {what}", float(value)
        for side, (step, score) in zip(sides, pairs, strict=True):
            seconds(step, steps_per_epoch(len(data.train), BATCH, 1))
            auc, _ = grouped_auc(data.test.label, score(data.test), np.zeros(len(data.test), int))
            yield "peer: test AUC", name, side, float(auc[0])
