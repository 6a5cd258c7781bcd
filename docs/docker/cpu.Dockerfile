# Hedgemark for machines without a GPU: both stages, in the tested versions. In a clone:
#     docker build --file docs/docker/cpu.Dockerfile --tag hedgemark .
FROM python:3.12-slim-bookworm

# First and from PyTorch's own index, whose build without CUDA is much smaller.
RUN pip install --no-cache-dir --index-url https://download.pytorch.org/whl/cpu torch==2.13.0

WORKDIR /opt/hedgemark
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY schemas schemas
COPY store store
COPY producer producer
COPY analyzer analyzer
RUN pip install --no-cache-dir --constraint constraints.txt '.[producer]'

# A user of its own; /data is where stores, models and work that was interrupted are kept.
RUN useradd --create-home --uid 1000 hedgemark && install --directory --owner hedgemark /data
USER 1000
WORKDIR /data
ENV HEDGEMARK_STORE=/data/hedgemark-store HEDGEMARK_CACHE=/data/cache HF_HOME=/data/huggingface
VOLUME /data
ENTRYPOINT ["hedgemark"]
CMD ["--help"]
