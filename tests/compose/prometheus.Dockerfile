# Replaces prom/prometheus if that image cannot be pulled: Debian's package, started as that image starts.
ARG BASE
FROM ${BASE}
# Any version that the distribution has is good enough.
# hadolint ignore=DL3008
RUN apt-get update -q \
    && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends prometheus wget \
    && rm -rf /var/lib/apt/lists/* \
    && install -d -o 65534 -g 65534 /prometheus
USER 65534
WORKDIR /prometheus
VOLUME /prometheus
ENTRYPOINT ["prometheus"]
