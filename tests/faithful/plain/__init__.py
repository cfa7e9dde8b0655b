"""The published method written out plainly and slowly, from its description alone; nothing in here imports ncdss_lib.

One module a part: ``data``, ``network``, ``training`` (losses and steps of the three trainings), ``pseudo_labels`` (clustering,
entropy ranking and reassignment) and ``evaluation``. Weights
are dictionaries of tensors under the names of the weight files; everything else is arrays and lists.
"""
