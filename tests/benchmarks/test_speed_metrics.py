import numpy as np

from croco_lib.metrics import grouped_auc


def test_auc_and_gauc_of_ten_million_rows(benchmark):
    rows, users = 10_000_000, 1_000_000
    rng = np.random.default_rng(0)
    label = rng.integers(0, 2, rows).astype(np.float32)
    score = rng.normal(size=rows).astype(np.float32)
    user = rng.integers(0, users, rows)

    def both():
        overall = grouped_auc(label, score, np.zeros(rows, int))[0][0]
        auc, count = grouped_auc(label, score, user)
        two = ~np.isnan(auc)
        return overall, np.average(auc[two], weights=count[two])

    auc, gauc = benchmark.pedantic(both, rounds=3)
    assert abs(auc - 0.5) < 0.01
    assert abs(gauc - 0.5) < 0.01
