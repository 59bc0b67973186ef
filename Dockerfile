# The service: Triton from its PyPI wheel, ONNX Runtime, PyAV. No PyTorch, no decord.
#
#   docker build -t backtal .
#   docker run --rm --network host --shm-size 1g -v "$PWD/var/repository:/repository:ro" backtal
#   docker run --rm --shm-size 1g -v "$PWD/var/repository:/repository:ro" -v "$PWD:/videos:ro" \
#       backtal detect /videos/my.mp4 --repository /repository
#
# The service listens on loopback: without --network host only this container reaches it.
#
# The base is an argument: any Debian or Ubuntu whose python3 is 3.10 to 3.12. Pin it by digest.
ARG BASE=debian:12-slim

# hadolint ignore=DL3006
FROM ${BASE} AS build
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 python3-venv \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
RUN python3 -m venv /opt/backtal
COPY pyproject.toml constraints.txt README.md LICENSE NOTICE ./
COPY backtal backtal
COPY training training
COPY export export
COPY serving serving
COPY model_repository model_repository
RUN /opt/backtal/bin/pip install --no-cache-dir --constraint constraints.txt ".[serving]"

# hadolint ignore=DL3006
FROM ${BASE}
# The shared libpython is what Triton's Python backend is linked to.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends python3 libpython3-stdlib \
    && minor="$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')" \
    && (apt-get install -y --no-install-recommends "libpython${minor}" \
        || apt-get install -y --no-install-recommends "libpython${minor}t64") \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --uid 10001 --create-home backtal \
    && mkdir /repository
COPY --from=build /opt/backtal /opt/backtal
COPY LICENSE NOTICE /usr/share/doc/backtal/
ENV PATH=/opt/backtal/bin:$PATH \
    PYTHONUNBUFFERED=1
USER 10001
WORKDIR /home/backtal
HEALTHCHECK --interval=15s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python3", "-c", "import sys; from backtal.client import Client; sys.exit(not Client('127.0.0.1:8001').is_ready())"]
ENTRYPOINT ["backtal"]
CMD ["serve", "--repository", "/repository", "--grpc-port", "8001"]
