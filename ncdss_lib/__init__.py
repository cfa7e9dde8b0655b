"""Novel class discovery in semantic segmentation, stage by stage.

The method is that of Zhao, Zhong, Sebe and Lee (CVPR 2022).
"""

import os

# Read by torch when it first allocates: large CPU tensors on huge pages, since touching millions of
# small ones is slow.
os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

__version__ = "0.1.0"
