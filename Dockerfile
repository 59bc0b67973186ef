# The images: docs/deploying.md says which is for what.
#
#   docker build --target embedded -t backtal:0.1.0 .          Triton from its PyPI wheel; CPUs
#   docker build --target triton -t backtal-triton:0.1.0 .     NVIDIA's Triton; GPUs
#   docker build --target index -t backtal-index:0.1.0 .       `backtal index`, with Ray; no Triton
#
#   docker run --rm --network host --shm-size 1g -v "$PWD/var/repository:/repository:ro" backtal:0.1.0
#   docker run --rm --shm-size 1g -v "$PWD/var/repository:/repository:ro" -v "$PWD:/videos:ro" \
#       backtal:0.1.0 detect /videos/my.mp4 --repository /repository
#
# Without --keys the service listens on loopback: without --network host only its container reaches
# it. No image has PyTorch, decord or a compiler. Packages are pinned by hash: `make image-pins`.
#
# Bases are arguments. Pin them by digest: --build-arg BASE=debian:12-slim@sha256:...
# Debian 12, for its Python 3.11: the hashes are of that version's wheels.
ARG BASE=debian:12-slim
# 25.07 or later: earlier ones have CVE-2025-23319, -23320 and -23334. It has Python 3.12.
ARG TRITON_BASE=nvcr.io/nvidia/tritonserver:25.07-py3

# hadolint ignore=DL3006
FROM ${BASE} AS build
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY pyproject.toml README.md LICENSE NOTICE ./
COPY backtal backtal
COPY training training
COPY export export
COPY serving serving
COPY indexing indexing
COPY model_repository model_repository
COPY deploy/image deploy/image
# The build's own tools stay in this stage.
RUN python3 -m venv /opt/tools \
    && /opt/tools/bin/pip install --no-cache-dir --require-hashes -r deploy/image/tools.txt \
    && /opt/tools/bin/pip wheel --no-cache-dir --no-deps --no-build-isolation --wheel-dir wheels .

FROM build AS packages
RUN python3 -m venv /opt/backtal \
    && /opt/backtal/bin/pip install --no-cache-dir --require-hashes -r deploy/image/embedded.txt \
    && /opt/backtal/bin/pip install --no-cache-dir --no-deps wheels/*.whl \
    && /opt/backtal/bin/pip check \
    && /opt/tools/bin/cyclonedx-py environment /opt/backtal --of JSON -o sbom.cdx.json

FROM build AS index-packages
RUN python3 -m venv /opt/backtal \
    && /opt/backtal/bin/pip install --no-cache-dir --require-hashes -r deploy/image/index.txt \
    && /opt/backtal/bin/pip install --no-cache-dir --no-deps wheels/*.whl \
    && /opt/backtal/bin/pip check \
    && /opt/tools/bin/cyclonedx-py environment /opt/backtal --of JSON -o sbom.cdx.json

# Index runs are clients of the service.
# hadolint ignore=DL3006
FROM ${BASE} AS index
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 libpython3-stdlib \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --create-home backtal
COPY --from=index-packages /opt/backtal /opt/backtal
COPY --from=index-packages /build/sbom.cdx.json /build/LICENSE /build/NOTICE /usr/share/doc/backtal/
ENV PATH=/opt/backtal/bin:$PATH \
    PYTHONUNBUFFERED=1
USER 10001
WORKDIR /home/backtal
ENTRYPOINT ["backtal"]
CMD ["index", "--help"]

# What runs in NVIDIA's container: the front door is in the image below.
FROM ${TRITON_BASE} AS triton
COPY --from=build /build/wheels /build/deploy/image/triton.txt /tmp/backtal/
USER 0
RUN pip install --no-cache-dir --break-system-packages --require-hashes -r /tmp/backtal/triton.txt \
    && pip install --no-cache-dir --break-system-packages --no-deps /tmp/backtal/*.whl \
    && rm -rf /tmp/backtal \
    && useradd --system --uid 10001 --create-home backtal
COPY LICENSE NOTICE /usr/share/doc/backtal/
USER 10001
WORKDIR /home/backtal
HEALTHCHECK --interval=30s --timeout=30s --start-period=600s --retries=3 \
    CMD ["python3", "-m", "backtal_serving.probe", "/repository", "127.0.0.1:8001"]
CMD ["tritonserver", "--model-repository=/repository", "--grpc-address=127.0.0.1", "--allow-http=false"]

# The last, so the default.
# hadolint ignore=DL3006
FROM ${BASE} AS embedded
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# The shared libpython is what Triton's Python backend is linked to.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 libpython3-stdlib libpython3.11 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --create-home backtal \
    && install -d -o backtal /state \
    && mkdir /repository
COPY --from=packages /opt/backtal /opt/backtal
COPY --from=packages /build/sbom.cdx.json /build/LICENSE /build/NOTICE /usr/share/doc/backtal/
ENV PATH=/opt/backtal/bin:$PATH \
    PYTHONUNBUFFERED=1
USER 10001
WORKDIR /home/backtal
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python3", "-c", "import sys, urllib.request as r; sys.exit(r.urlopen('http://127.0.0.1:8000/readyz', timeout=4).status != 200)"]
ENTRYPOINT ["backtal"]
CMD ["serve", "--repository=/repository"]
