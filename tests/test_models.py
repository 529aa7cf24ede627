"""Models against their equations, and the properties every model must have."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from croco_lib import CrocoError, build
from croco_lib.layers import Experts, mix
from croco_lib.losses import REGULARISERS
from croco_lib.models import MODELS, options_of
from croco_lib.online.serving import Schema

DEEP = dict(levels=2, per_stream=2)
ALL = [*((name, {}) for name in MODELS), ("ple", DEEP), ("me-ple", DEEP), ("crocodile", dict(gate="peg-domain"))]
each_model = pytest.mark.parametrize(("name", "options"), ALL, ids=[f"{n}{'+' if o else ''}" for n, o in ALL])


@pytest.fixture(scope="module")
def batch(small_world):
    """A batch in which every domain has rows."""
    rows = np.random.default_rng(0).permutation(len(small_world.train))[:600]
    part = small_world.train.take(rows)
    assert len(np.unique(part.domain)) == len(small_world.domains)
    return torch.from_numpy(part.features), torch.from_numpy(part.domain), torch.from_numpy(part.label)


# -------------------------------------------------------------------------- what every model must have


@each_model
def test_prediction_depends_on_the_row_alone(small_world, batch, name, options):
    model = build(name, small_world, **options).eval()
    features, domain, _ = batch
    with torch.no_grad():
        all_rows = model(features, domain).logits
        assert all_rows.shape == (600,)
        assert torch.allclose(model(features.flip(0), domain.flip(0)).logits.flip(0), all_rows, atol=1e-5)
        for n in (0, 17):
            alone = model(features[n : n + 1], domain[n : n + 1])
            assert torch.allclose(alone.logits[0], all_rows[n], atol=1e-5)
    model.train()
    assert torch.as_tensor(model(features[:1], domain[:1]).penalty).isfinite()


@each_model
def test_every_parameter_gets_a_gradient(small_world, batch, name, options):
    model = build(name, small_world, **options)
    out = model(*batch[:2])
    (out.logits.square().sum() + out.penalty).backward()
    without = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert not without


@each_model
def test_the_domain_matters(small_world, batch, name, options):
    model = build(name, small_world, **options).eval()
    features, domain, _ = batch
    before = model(features, domain).logits
    moved, other = features.clone(), (domain + 1) % 5
    moved[:, small_world.column("domain")] = other.int() + 1
    assert (model(moved, other).logits != before).float().mean() > 0.99
    if name in ("pepnet", "adasparse"):  # these learn the domain from its field alone
        return
    if name == "star":  # whose domains start alike
        with torch.no_grad():
            [layer.own.uniform_(generator=torch.Generator().manual_seed(0)) for layer in model.layers]
    assert not torch.allclose(model(features, other).logits, model(features, domain).logits)


@each_model
def test_the_seed_alone_fixes_the_weights(small_world, batch, name, options):
    before = torch.get_rng_state()
    one, again, other = (build(name, small_world, seed=s, **options)(*batch[:2]).logits for s in (1, 1, 2))
    assert torch.equal(one, again) and not torch.equal(one, other)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(name="crocodil"), "Did you mean 'crocodile'"),
        (dict(alfa=1), "Did you mean 'alpha'"),
        (dict(alpha=-1.0), "alpha must be 0 or more"),
        (dict(alpha=True), "0 or more"),
        (dict(sets=0), "whole numbers of 1 or more"),
        (dict(sample=0), "whole numbers"),
        (dict(gate="pg"), "Did you mean 'peg'"),
        (dict(gate="all"), "peg.*peg-domain.*domain"),
        (dict(gate=3), "a name"),
        (dict(regulariser="covv"), "Did you mean 'cov'"),
        (dict(multi_embedding=1), "true or false"),
        (dict(expert=64), "takes a list of widths"),
        (dict(expert=[]), "takes whole numbers of 1 or more"),
        (dict(alpha=float("inf")), "alpha must be 0 or more"),
    ],
)
def test_names_and_options_are_checked(small_world, options, message):
    with pytest.raises(CrocoError, match=message):
        build(**{"name": "crocodile", "data": small_world, **options})


SETS = {"single-domain": 5, "me-mmoe": 5, "crocodile": 5, "me-ple": 6, "sdem": 6}  # all other models: one


@pytest.mark.parametrize("name", MODELS)
def test_models_have_the_same_sizes_and_as_many_embedding_sets_as_they_should(small_world, name):
    assert {"dim": 16, "expert": (64, 32), "tower": (16,)}.items() <= options_of(name).items()
    assert build(name, small_world).embedding.sets == SETS.get(name, 1)
    assert build(name, small_world, dim=4).embedding.table.embedding_dim == 4 * SETS.get(name, 1)
    narrow = build(name, small_world, tower=(3,))
    assert 3 in [m.in_features for m in narrow.modules() if isinstance(m, torch.nn.Linear)]
    again = pickle.loads(pickle.dumps(narrow))  # as another process gets it
    assert all(torch.equal(a, b) for a, b in zip(narrow.parameters(), again.parameters(), strict=True))


@each_model
def test_experts_may_have_any_number_of_layers_and_files_hold_only_what_is_trained(small_world, batch, name, options):
    model = build(name, small_world, expert=(6, 5, 4), tower=(3,), **options)
    assert model(*batch[:2]).logits.shape == batch[1].shape
    measured = {key for key in model.state_dict() if "running" in key or "num_batches" in key}  # STAR's running means
    assert set(model.state_dict()) - measured == {key for key, _ in model.named_parameters()}
    assert bool(measured) == (name == "star")


MIXED = ["shared-bottom", "single-domain", "mmoe", "me-mmoe", "sdem", "crocodile"]  # towers that read one mixture


@pytest.mark.parametrize("name", MIXED)
def test_what_a_model_says_of_its_experts_and_gate_makes_its_logits(small_world, batch, name):
    features, domain, _ = batch
    model = build(name, small_world)
    out = model(features, domain)
    t = out.experts[0] if out.gate is None else (out.gate * out.experts).sum(0)
    assert torch.allclose(model.towers(t, domain), out.logits, atol=1e-6)


def test_hinets_gate_is_each_experts_mean_weight_in_the_towers_three_inputs(small_world, batch):
    features, domain, _ = batch
    model = build("hinet", small_world)
    out, k = model(features, domain), 2
    streams = out.gate.squeeze(-1).unflatten(0, (6, k))  # [S + 1, k, N]
    within = model.within(model.embedding(features).expand(6, -1, -1)).softmax(-1).transpose(1, 2)  # [S + 1, k, N]
    assert torch.allclose(streams[5], within[5] / 3, atol=1e-6)  # the shared stream
    rows = torch.arange(len(domain))
    assert torch.allclose(streams[domain, :, rows], within[domain, :, rows] / 3, atol=1e-6)  # the row's own
    assert torch.allclose(out.gate.sum(0), torch.ones(len(domain), 1), atol=1e-6)
    assert torch.equal(out.experts, model.experts(model.embedding(features)))


def test_hinet_needs_another_domain(small_world):
    one, two = (Schema("a", small_world.fields, small_world.domains[:n]) for n in (1, 2))
    with pytest.raises(CrocoError, match="hinet .* needs two domains or more"):
        build("hinet", one)
    build("hinet", two)


# ------------------------------------------------------------------------ models against their equations


def numbers(module):
    return {n: p.detach().double().numpy() for n, p in module.named_parameters()}


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def embedded(model, data, row):
    """The row's input from each set: [M, F·e]."""
    tables, first = model.embedding.weights().detach().double().numpy(), np.cumsum([0] + [f.size for f in data.fields])
    return np.stack([np.concatenate([E[first[f] + v] for f, v in enumerate(row)]) for E in tables])


def mlp(experts, m, x):
    p = numbers(experts)
    for i in range(len(experts.layers)):
        x = (np.maximum(x, 0) if i else x) @ p[f"layers.{i}.weight"][m] + p[f"layers.{i}.bias"][m, 0]
    return x


def tower(model, s, t):
    p = numbers(model.towers.towers[s])
    return (np.maximum(t @ p["0.weight"].T + p["0.bias"], 0) @ p["2.weight"].T + p["2.bias"])[0]


def domain_gate(gate, s, x):
    p = numbers(gate.maps[s])
    return softmax(p["weight"] @ x + p["bias"])


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def linear(p, at, x):
    return p[f"{at}.weight"] @ x + p[f"{at}.bias"]


def dense(p, at, x):
    """A linear layer, ReLU, a linear layer."""
    return linear(p, f"{at}.2", np.maximum(linear(p, f"{at}.0", x), 0))


def part_of(x, data, role):
    width = len(x) // len(data.fields)
    return x[data.column(role) * width :][:width]


def star(model, data, x, s):
    p, norm = numbers(model), model.norm.norms[s]
    z = (x - norm.running_mean.numpy()) / np.sqrt(norm.running_var.numpy() + norm.eps)
    h = p["norm.scale"] * p["norm.scales"][s] * z + p["norm.shift"] + p["norm.shifts"][s]
    for i in range(len(model.layers)):
        W = p[f"layers.{i}.shared.weight"][0] * p[f"layers.{i}.own"][s]
        h = (np.maximum(h, 0) if i else h) @ W + p[f"layers.{i}.shared.bias"][0, 0] + p[f"layers.{i}.bias"][s]
    return (h + dense(p, "auxiliary", x))[0]


def hinet(model, data, x, s):
    p, S = numbers(model), len(data.domains)
    k = model.experts.count // (S + 1)
    stream = []
    for t in range(S + 1):  # each stream: its sub-experts, weighed by its own gate
        g = softmax(x @ p["within.weight"][t] + p["within.bias"][t, 0])
        stream.append(sum(g[j] * mlp(model.experts, t * k + j, x) for j in range(k)))
    others = [t for t in range(S) if t != s]
    w = softmax(linear(p, "attention", part_of(x, data, "domain"))[others])
    attended = sum(a * stream[t] for a, t in zip(w, others, strict=True))
    return tower(model, s, np.concatenate([stream[S], stream[s], attended]))


def pepnet(model, data, x, s):
    p = numbers(model)
    e_s, e_u, e_i = (part_of(x, data, role) for role in ("domain", "user", "item"))
    e_a = [e for f, e in zip(data.fields, np.split(x, len(data.fields)), strict=True) if f.name.startswith("author")]
    x = 2 * sigmoid(dense(p, "epnet", np.concatenate([e_s, x]))) * x
    prior, h = np.concatenate([e_u, e_i, *e_a, x]), x
    for i in range(len(model.layers)):
        h = (np.maximum(h, 0) if i else h) * 2 * sigmoid(dense(p, f"ppnet.{i}", prior))
        h = linear(p, f"layers.{i}", h)
    return h[0]


def adasparse(model, data, x, s):
    p, h = numbers(model), x
    for i in range(len(model.layers)):
        h = np.maximum(h, 0) if i else h
        share = sigmoid(linear(p, f"pruners.{i}", np.concatenate([part_of(x, data, "domain"), h])))
        h = linear(p, f"layers.{i}", np.where(share > model.epsilon, 2 * share, 0) * h)
    return h[0]


def equation(model, data, row, s):
    """The logit of one row, from the paper's equations of each model, in NumPy."""
    x, name = embedded(model, data, row), model.name
    S = len(data.domains)
    if name == "shared-bottom":
        return tower(model, s, mlp(model.experts, 0, x[0]))
    if name == "mmoe":
        g = domain_gate(model.gate, s, x[0])
        return tower(model, s, sum(g[m] * mlp(model.experts, m, x[0]) for m in range(len(g))))
    if name == "me-mmoe":
        g = domain_gate(model.gate, s, sum(x) / len(x))
        return tower(model, s, sum(g[m] * mlp(model.experts, m, x[m]) for m in range(len(x))))
    if name == "sdem":
        g = domain_gate(model.gate, s, x[s] + x[S])
        return tower(model, s, sum(g[m] * mlp(model.experts, m, x[m]) for m in range(S + 1)))
    if name == "crocodile":
        p, first = numbers(model.gate), np.cumsum([0] + [f.size for f in data.fields if f.prior])
        prior = [v for v, f in zip(row, data.fields, strict=True) if f.prior]
        r = np.concatenate([p["prior.table.weight"][first[k] + v] for k, v in enumerate(prior)])
        own = f"maps.{s}" if model.options["gate"] == "peg-domain" else "map"
        scores = linear(p, own, r).reshape(len(x), -1)  # [M, d]
        O = np.stack([mlp(model.experts, m, x[m]) for m in range(len(x))])
        t = [sum(softmax(scores[:, i])[m] * O[m, i] for m in range(len(x))) for i in range(O.shape[1])]
        return tower(model, s, np.array(t))
    if name == "single-domain":
        return tower(model, s, mlp(model.experts, s, x[s]))
    if name in ("star", "hinet", "pepnet", "adasparse"):
        return {"star": star, "hinet": hinet, "pepnet": pepnet, "adasparse": adasparse}[name](model, data, x[0], s)
    k = model.per_stream  # PLE and ME-PLE
    inputs = [x[j if len(x) > 1 else 0] for j in range((S + 1) * k)]
    states = [inputs[t * k] for t in range(S + 1)]
    for i, level in enumerate(model.levels):
        O = [mlp(level.experts, j, inputs[j] if i == 0 else states[j // k]) for j in range((S + 1) * k)]
        p, new = numbers(level.gates), []
        for t in range(S + 1 if i < len(model.levels) - 1 else S):
            mine = [j for j in range(len(O)) if t == S or j // k in (t, S)]
            g = softmax((states[t] @ p["weight"][t] + p["bias"][t, 0])[mine])
            new.append(sum(w * O[j] for w, j in zip(g, mine, strict=True)))
        states = new
    return tower(model, s, states[s])


@each_model
def test_model_is_its_equations(small_world, batch, name, options):
    check_equations(small_world, batch, name, options)


def test_pepnets_gates_do_not_bend_what_they_read(small_world, batch):
    """With the gates' outputs taken as constants, only the priors' vectors have another gradient."""
    model, grads = build("pepnet", small_world), []
    for _ in range(2):
        model.zero_grad()
        model(*batch[:2]).logits.square().sum().backward()
        grads.append(model.embedding.table.weight.grad.clone())
        for gate in (model.epnet, *model.ppnet):
            gate.register_forward_hook(lambda gate, given, out: out.detach())
    sizes, alike = [f.size for f in small_world.fields], {}
    for field, ours, fixed in zip(small_world.fields, *(g.split(sizes) for g in grads), strict=True):
        alike[field.name] = torch.allclose(ours, fixed, atol=1e-7)
    assert {name for name, same in alike.items() if same} == {"group", "activity", "category"}  # in no prior


@pytest.mark.parametrize("name", ["author_id", "maker"])
def test_pepnets_prior_holds_the_author_where_a_field_is_called_so(small_world, batch, name):
    fields = tuple(replace(f, name=name) if f.name == "author" else f for f in small_world.fields)
    model = check_equations(replace(small_world, fields=fields), batch, "pepnet", {})
    inputs = 3 * (2 + (name == "author_id") + len(fields))
    assert [gate[0].in_features for gate in model.ppnet] == [inputs] * 4
    assert model.epnet[0].in_features == 3 * (1 + len(fields))


def test_pepnet_takes_one_field_for_the_author(small_world):
    names = {"author": "author_id", "category": "author"}
    fields = tuple(replace(f, name=names.get(f.name, f.name)) for f in small_world.fields)
    assert {"author_id", "author"} <= {f.name for f in fields}
    model = build("pepnet", replace(small_world, fields=fields), dim=3)
    assert model.ppnet[0][0].in_features == 3 * (2 + 1 + len(fields))


def check_equations(data, batch, name, options):
    model = build(name, data, dim=3, expert=(5, 4), tower=(3,), **options)
    drawn = torch.Generator().manual_seed(0)
    with torch.no_grad():  # no parameter at a value that would hide it
        [parameter.add_(0.3 * torch.randn(parameter.shape, generator=drawn)) for parameter in model.parameters()]
    model(*batch[:2])  # one step of running means, where there are any
    model.eval()
    some = torch.cat([(batch[1] == s).nonzero()[:3, 0] for s in range(5)])  # three rows of each domain
    features, domain = batch[0][some], batch[1][some]
    expected = [equation(model, data, row, int(s)) for row, s in zip(features.tolist(), domain, strict=True)]
    np.testing.assert_allclose(model(features, domain).logits.detach().numpy(), expected, atol=1e-5)
    return model


# ----------------------------------------------------------------------------------- who trains which table


def gradient_by_set(model, features, domain, s):
    model.zero_grad()
    model(features[domain == s], domain[domain == s]).logits.sum().backward()
    grad = model.embedding.table.weight.grad.unflatten(1, (model.embedding.sets, -1))  # [V, M, e]
    return (grad != 0).any(-1).any(0).tolist()


@pytest.mark.parametrize(("name", "tables"), [("me-ple", 6), ("sdem", 6), ("me-mmoe", 5), ("crocodile", 5)])
def test_which_tables_a_domains_rows_train(small_world, batch, name, tables):
    """Its own and the shared one, the last of six; where there are five, all are shared."""
    model = build(name, small_world)
    for s in range(5):
        assert gradient_by_set(model, *batch[:2], s) == [tables == 5 or m in (s, 5) for m in range(tables)], s


def test_a_domains_rows_train_its_own_map_of_peg_only(small_world, batch):
    features, domain, _ = batch
    model = build("crocodile", small_world, gate="peg-domain", alpha=0.0)
    model(features[domain == 1], domain[domain == 1]).logits.sum().backward()
    trained = [m.weight.grad is not None and bool(m.weight.grad.any()) for m in model.gate.maps]
    assert trained == [False, True, False, False, False]


@pytest.mark.parametrize("s", range(5))
def test_sdem_is_a_gradient_through_everything_with_the_others_taken_as_given(small_world, batch, s):
    """Its gradient in what does learn is that of a model whose other experts are constants, and no smaller."""
    model, (features, domain, _) = build("sdem", small_world), batch
    features, domain = features[domain == s], domain[domain == s]
    model(features, domain).logits.square().sum().backward()
    for name, parameter in model.experts.named_parameters():  # each [S + 1, …]
        assert [bool(g.any()) for g in parameter.grad] == [m in (s, 5) for m in range(6)], name
    ours = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    with torch.no_grad():
        given = model.experts(model.embedding(features))
    model.zero_grad()
    x = model.embedding(features)
    O = model.experts(x)
    O = torch.stack([O[m] if m in (s, 5) else given[m] for m in range(6)])
    t = mix(model.gate(x[s] + x[5], domain), O)
    model.towers(t, domain).square().sum().backward()
    for name, parameter in model.named_parameters():
        if parameter.grad is not None:
            assert torch.allclose(ours[name], parameter.grad, atol=1e-6), name


def test_me_mmoe_is_crocodile_without_covloss_and_peg(small_world, batch):
    """So the two parts that Crocodile adds to it are the two that its ablations take away."""
    ours, bare = build("me-mmoe", small_world), build("crocodile", small_world, alpha=0.0, gate="domain")
    ours.load_state_dict(bare.state_dict())
    one, two = ours(*batch[:2]), bare(*batch[:2])
    assert torch.equal(one.logits, two.logits) and one.penalty == two.penalty == 0


def test_alpha_weighs_the_penalty(small_world, batch):
    none, one, two = (build("crocodile", small_world, alpha=a)(*batch[:2]).penalty for a in (0.0, 1.0, 2.0))
    assert none == 0 and one > 0 and torch.isclose(two, 2 * one)


# ----------------------------------------------------------------------------------------- ablations, details


def test_crocodiles_ablations_change_one_part_each(small_world, batch):
    features, domain, _ = batch
    full = build("crocodile", small_world)(features, domain)
    by_expert = build("crocodile", small_world, gate="expert")(features, domain)
    by_domain_ = build("crocodile", small_world, gate="domain")(features, domain)
    assert full.gate.shape == (5, 600, 32) and by_expert.gate.shape == by_domain_.gate.shape == (5, 600, 1)
    one = build("crocodile", small_world, multi_embedding=False)
    assert one.embedding.sets == 1 and one(features, domain).experts.shape == (5, 600, 32)


def test_star_normalises_each_domain_by_its_own_rows(small_world, batch):
    model, (features, domain, _) = build("star", small_world), batch
    z = model.norm(model.embedding(features)[0], domain)
    for s in range(5):
        assert torch.allclose(z[domain == s].mean(0), torch.zeros(z.shape[1]), atol=1e-3)
    assert all(norm.weight is None for norm in model.norm.norms)  # its scales are γ and γ_s, nothing else


def test_adasparse_is_drawn_to_its_sparsity(small_world, batch):
    model = build("adasparse", small_world, epsilon=0.0)
    model(*batch[:2]).penalty.backward()
    assert all(pruner.bias.grad.sum() > 0 for pruner in model.pruners)  # a step down the gradient closes neurons


@pytest.mark.parametrize("epsilon", [0.0, 0.4, 0.47, 0.48, 0.49, 0.5, 0.6])
def test_adasparses_penalty_is_its_formula(small_world, batch, epsilon):
    """Σ over layers of WEIGHT (r − 0.2)² / layers, for shares of closed neurons r outside of [0.15, 0.25]."""
    from croco_lib.models import adasparse as module

    features, domain, _ = batch
    model = build("adasparse", small_world, epsilon=epsilon)
    h = model.embedding(features)[0]
    e_s, expected = h.unflatten(1, (features.shape[1], -1))[:, small_world.column("domain")], 0.0
    for i, (pruner, layer) in enumerate(zip(model.pruners, model.layers, strict=True)):
        h = torch.relu(h) if i else h
        share = pruner(torch.cat([e_s, h], 1)).sigmoid()
        r = (share <= epsilon).double().mean().item()
        expected += module.WEIGHT * (not 0.15 <= r <= 0.25) * (r - 0.2) ** 2 / len(model.layers)
        h = layer(torch.where(share > epsilon, module.BETA * share, 0) * h)
    assert model(features, domain).penalty.item() == pytest.approx(expected, rel=1e-4, abs=1e-9)


@pytest.mark.parametrize("name", REGULARISERS)
def test_a_regulariser_by_name_is_the_penalty_on_the_rows_of_the_sample(small_world, batch, name):
    chosen = {} if name == "cov" else {"regulariser": name}  # that is the default
    out = build("crocodile", small_world, alpha=2.0, sample=50, **chosen)(*batch[:2])
    expected = 2 * REGULARISERS[name](out.experts[:, :50], out.gate[:, :50])
    assert torch.isclose(out.penalty, expected) and out.penalty != 0


def test_experts_begin_as_torchs_linear_layers_do_but_for_the_biases():
    torch.manual_seed(0)
    for linears, inputs in zip(Experts(5, 112, (64, 32)).layers, (112, 64), strict=True):
        bound, weight = inputs**-0.5, linears.weight.detach()
        assert -bound <= weight.min() < -0.99 * bound and 0.99 * bound < weight.max() <= bound
        assert float(weight.std()) == pytest.approx(bound / 3**0.5, rel=0.02)
        assert not linears.bias.any()


def test_star_normalises_a_row_that_is_alone_by_what_it_has_seen(small_world):
    norm, rows = build("star", small_world).norm, torch.randn(400, 7 * 16, generator=torch.Generator().manual_seed(0))
    norm(rows * 2 + 3, torch.arange(400) % 5)  # moves the running means
    alone, domain = rows[:1], torch.tensor([2])
    in_training, in_use = norm(alone, domain), norm.eval()(alone, domain)
    assert torch.allclose(in_training, in_use, atol=1e-6) and not torch.allclose(in_training, alone, atol=0.1)
