"""Adam, dense and lazy, and weight decay that means the same for both."""

import torch
from torch import nn

LAZY_FROM = 1 << 18  # ids: from here on a dense step over the tables costs more than all else
# SparseAdam adds ε before it corrects the mean of squares, Adam after: with this ε their first steps are the same.
LAZY_EPS = 1e-8 * (1 - 0.999) ** 0.5
PIECE = 1 << 12  # rows of a table that the processor's cache holds


def tables_of(model: nn.Module) -> list[nn.Embedding]:
    """The embedding tables of the model, the gate's among them."""
    return [module for module in model.modules() if isinstance(module, nn.Embedding)]


def adam(model: nn.Module, lazy: bool, lr: float) -> list[torch.optim.Optimizer]:
    """Adam for all weights; or, where `lazy`, for all but the tables, and lazy Adam for these, on sparse gradients."""
    tables = tables_of(model)
    for table in tables:
        table.sparse = lazy  # read at every lookup; PyTorch has no other way to change it
    in_tables = {id(table.weight) for table in tables if lazy}
    dense = [weight for weight in model.parameters() if id(weight) not in in_tables]
    # Fused: one kernel updates all weights in a single pass over memory, and memory is what bounds Adam's step.
    optimizers: list[torch.optim.Optimizer] = [torch.optim.Adam(dense, lr=lr, fused=True)] if dense else []
    if lazy and tables:  # a reader's own model may have none
        optimizers.append(torch.optim.SparseAdam([table.weight for table in tables], lr=lr, eps=LAZY_EPS))
        optimizers[-1].register_step_pre_hook(lambda *_: sum_repeats(tables))
    return optimizers


def sum_repeats(tables: list[nn.Embedding]) -> None:
    """One entry for each id in the tables' sparse gradients: what `coalesce` does, as fast on a CPU, faster on a GPU.

    There `coalesce` adds up an id's rows one after the other, and the ids of a small field stand in thousands of rows.
    """
    for table in tables:
        if (grad := table.weight.grad) is not None and not grad.is_coalesced():
            ids, entry = grad._indices()[0].unique(return_inverse=True)
            values = torch.ops.aten.embedding_dense_backward(grad._values(), entry, len(ids), -1, False)
            table.weight.grad = torch.sparse_coo_tensor(
                ids[None], values, grad.shape, is_coalesced=True, check_invariants=False
            )


def decay(model: nn.Module, weight_decay: float) -> None:
    """L2: add λ w to every gradient; in the tables to that of the vectors that the batch trains, and of no others.

    Adam's steps do not depend on the size of a gradient, so a vector whose only gradient is λ w would fall to 0 at any
    λ. A vector is trained where its gradient is not 0: of a row that is read, the sets that have a say in the loss.
    """
    tables = tables_of(model)
    in_tables = {id(table.weight) for table in tables}
    sum_repeats([table for table in tables if table.sparse])  # λ w is added once to a row that is read twice
    for parameter in model.parameters():
        if parameter.grad is None:
            continue
        grad, weight = parameter.grad, parameter.detach()
        if grad.is_sparse:
            grad, weight = grad.values(), weight[grad.indices()[0]]
        if id(parameter) not in in_tables:
            grad.add_(weight, alpha=weight_decay)
            continue
        for g, w in zip(grad.split(PIECE), weight.split(PIECE), strict=True):
            g.add_(torch.where(g == 0, 0, w), alpha=weight_decay)
