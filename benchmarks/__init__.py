"""Speed and memory of the library against the published formulation of the same stage, measured
side by side; run by hand.

::

    python -m benchmarks [--data-root DIR] [--json FILE]        # one after the other
    python -m benchmarks.NAME [--data-root DIR] [--json FILE]   # one: under two minutes

DIR is a data set in the layout of PASCAL-5i; without it a few toy scenes are drawn. Figures go to
standard output, progress to standard error. The sides take turns and medians are compared, but only
an idle machine gives steady figures.

prototypes
    sum of features under a mask: upsample, then pool, or pool with the adjoint of the upsampling
scoring
    matching and IoU of given predictions: a mask for each class and pair, or one confusion matrix
evaluation
    the same with the network in front: two passes over the images, or one
entropy
    mean entropy over a region: of all pixels, then masked, or of the region's pixels
training_step
    one optimiser step, and how near it comes to the machine's convolution throughput
input_pipeline
    from files to normalised batches on the device: OpenCV and Pillow as published, or our views
memory
    peak memory of clustering and evaluation for 1x, 4x and 16x the images
hardware_needs
    computed, not measured: what the ``paper`` recipe needs of a GPU's memory and of a disk

``published.py`` holds the published formulations, written from their description, in as good a form
as they allow: single process, no needless copies.
"""

NAMES = (
    "prototypes",
    "scoring",
    "evaluation",
    "entropy",
    "training_step",
    "input_pipeline",
    "memory",
    "hardware_needs",
)
