import pytest
import torch

import croco_lib
from croco_lib.data import find

torch.set_num_threads(1)


@pytest.fixture(scope="session")
def small_world():
    return croco_lib.load("world", rows=20_000, users=300, items=400)


@pytest.fixture(scope="session")
def kuairand():
    if find("kuairand-pure") is None:
        pytest.skip("KuaiRand-Pure is not here; run `croco data --get kuairand-pure`")
    return croco_lib.load("kuairand-pure")
