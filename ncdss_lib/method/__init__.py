"""The method, one module a stage, in the order of the paper."""
