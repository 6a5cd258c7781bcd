# Hedgemark for machines without a GPU: both stages, in the tested versions. In a clone:
#     docker build --file docs/docker/cpu.Dockerfile --tag hedgemark .
# With --build-arg TORCH_INDEX=URL torch comes from that package index; PyTorch's own has builds without CUDA, which are much smaller.
FROM python:3.12-slim-bookworm

ARG TORCH_INDEX
RUN pip install --no-cache-dir ${TORCH_INDEX:+--index-url "$TORCH_INDEX"} torch==2.13.0

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
