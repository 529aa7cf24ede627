"""Raw files as the publishers lay them out, any number of rows, with every irregularity that is known of them.

`python -m croco_lib.study.raw ali-ccp --rows 10_000_000 --folder …`. Clicks depend on hidden factors of user and item
and on the domain, so that a model can learn something. A seed gives the same bytes again.
"""

from .aliccp import write_aliccp
from .kuairand import write_kuairand

__all__ = ["write_aliccp", "write_kuairand"]
