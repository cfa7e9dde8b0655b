"""Networks: encoders, the segmenter and its heads, checkpoints, cached features."""
