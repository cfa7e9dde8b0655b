"""Networks: encoders, the segmenter and its heads, the mean teacher, and the cache of dense
features.
"""
