# Hedgemark for NVIDIA GPUs: both stages, in the tested versions. In a clone:
#     docker build --file docs/docker/cuda.Dockerfile --tag hedgemark:cuda .
# The wheels of torch bring CUDA's libraries; the machine needs the driver and NVIDIA's container toolkit.
FROM python:3.12-slim-bookworm

# Kernels that Triton writes are compiled when they first run. No version is pinned, since Debian keeps no older ones.
# hadolint ignore=DL3008
RUN apt-get update && apt-get install --yes --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
RUN pip install --no-cache-dir torch==2.13.0

WORKDIR /opt/hedgemark
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY schemas schemas
COPY store store
COPY producer producer
COPY analyzer analyzer
RUN pip install --no-cache-dir --constraint constraints.txt '.[producer,bitsandbytes]'

# A user of its own; /data is where stores, models and work that was interrupted are kept.
RUN useradd --create-home --uid 1000 hedgemark && install --directory --owner hedgemark /data
USER 1000
WORKDIR /data
ENV HEDGEMARK_STORE=/data/hedgemark-store HEDGEMARK_CACHE=/data/cache HF_HOME=/data/huggingface
VOLUME /data
ENTRYPOINT ["hedgemark"]
CMD ["--help"]
