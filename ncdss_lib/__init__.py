"""Novel class discovery in semantic segmentation: the method of Zhao, Zhong, Sebe and Lee (CVPR 2022), stage by stage."""

__version__ = "0.1.0"
