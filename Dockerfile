# netplugin: the daemon, both command lines and nats-server. `docker build -t netplugin .`; compose.yaml runs it.
FROM python:3.11-slim AS build
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_CACHE_DIR=1
WORKDIR /source
RUN python -m venv /opt/netplugin
COPY requirements/ requirements/
# Every package by its hash. setuptools first: it builds the two that come as source, with nothing fetched beside the lock.
RUN sed -n '/^--/p;/^setuptools==/,/[^\\]$/p' requirements/dev.txt >/tmp/setuptools.txt \
    && /opt/netplugin/bin/pip install --require-hashes -r /tmp/setuptools.txt \
    && /opt/netplugin/bin/pip install --require-hashes --no-deps --no-build-isolation -r requirements/run.txt
COPY pyproject.toml LICENSE README.md ./
COPY messages/ messages/
COPY services/ services/
COPY ipam_actor/ ipam_actor/
COPY host_actor/ host_actor/
RUN /opt/netplugin/bin/pip install --no-deps --no-build-isolation --no-index .

FROM python:3.11-slim
# nft keeps containers off the host's own network where Open vSwitch forwards in user space. Open vSwitch is the host's.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends nftables \
    && rm -rf /var/lib/apt/lists/*
COPY --from=build /opt/netplugin /opt/netplugin
ENV PATH=/opt/netplugin/bin:$PATH PYTHONDONTWRITEBYTECODE=1
# Root is what the actor of a host needs; compose.yaml runs everything else as 10001.
CMD ["netplugin"]
