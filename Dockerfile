# The environment of `make env` in a container, for GPUs:
#   make image
#   docker run --gpus all --ipc=host -v DATA:/data:ro -v RUNS:/ncdss/runs ncdss \
#       make reproduce DATASET=pascal5i DATA_ROOT=/data RECIPE=paper FOLDS="0 1 2 3"
# PyTorch's wheels bring their own CUDA libraries; the image gives the driver's side of them.
# --ipc=host: loading processes hand over batches in shared memory, of which containers have 64 MB.
FROM nvidia/cuda:13.0.1-base-ubuntu24.04

SHELL ["/bin/bash", "-o", "pipefail", "-c"]

# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends make python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*

WORKDIR /ncdss

# What the environment depends on first: it is built again only when that changes.
COPY Makefile pyproject.toml constraints.txt README.md LICENSE ./
COPY ncdss_lib ncdss_lib
COPY toyscenes toyscenes
RUN make env

COPY . .
CMD ["make", "help"]
