"""The published method written out plainly and slowly, from its description alone; nothing in here imports ncdss_lib.

One module a part: ``data``, ``network`` (0), ``training`` (0, 3, 8, 10), ``pseudo_labels`` (4 to 7, 9) and
``evaluation`` (11). Weights are dictionaries of tensors under the names of the weight files; everything else is arrays and lists.
"""
