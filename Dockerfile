# Flagpost's programs. In: the workspace and its lock. Out: an image that runs `flagpost` (by default the consumer)
# and, as another entry point, `flagpost-gateway`; with `--target demo` also what docker-compose.yml plays with.
#
#   docker build --tag flagpost .
#   docker run flagpost check
#   docker run --entrypoint flagpost-gateway flagpost
#
# The base is any image that has Python >= 3.11 as `python3`, with its venv module. Nothing is run to make the final
# stages, and no shell is needed in them; their user is a number that the base need not know.
ARG PYTHON_IMAGE=python:3.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS build
ENV PIP_CERT=/etc/ssl/certs/ca-certificates.crt \
    SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt \
    UV_COMPILE_BYTECODE=1 \
    UV_LINK_MODE=copy \
    UV_LOCKED=1 \
    UV_NO_CACHE=1 \
    UV_NO_DEV=1 \
    UV_NO_EDITABLE=1 \
    UV_PROJECT_ENVIRONMENT=/opt/flagpost \
    UV_PYTHON_DOWNLOADS=never
WORKDIR /build
COPY release/uv.txt ./
# Where a proxy signs TLS anew, its authority is handed in: --secret id=ca-certificates,src=BUNDLE.
RUN --mount=type=secret,id=ca-certificates,target=/etc/ssl/certs/ca-certificates.crt \
    python3 -m venv /opt/uv \
    && /opt/uv/bin/python -m pip install --no-cache-dir --require-hashes --requirement uv.txt
ENV PATH=/opt/uv/bin:$PATH
# Dependencies change less often than the code: a layer of their own.
COPY pyproject.toml uv.lock ./
COPY schemas/pyproject.toml schemas/
COPY publisher/pyproject.toml publisher/
COPY consumer/pyproject.toml consumer/
RUN --mount=type=secret,id=ca-certificates,target=/etc/ssl/certs/ca-certificates.crt \
    UV_PROJECT_ENVIRONMENT=/opt/build uv sync --only-group build \
    && uv sync --no-install-workspace --package flagpost-consumer --package flagpost-publisher --extra gateway
COPY schemas schemas
COPY publisher publisher
COPY consumer consumer
# The members are built as wheels, with what the lock has for that, and installed from them. Scanners find what is
# inside by the packages' dist-info, which has their licences, and by the list in CycloneDX's form beside them.
RUN uv build --no-build-isolation --python /opt/build/bin/python --all-packages --out-dir /wheels \
    && uv pip install --python /opt/flagpost --no-index --no-deps --find-links /wheels \
        flagpost-schemas flagpost-publisher flagpost-consumer \
    && uv export --package flagpost-consumer --package flagpost-publisher --extra gateway \
        --quiet --format cyclonedx1.5 --output-file /opt/flagpost/sbom.cdx.json

FROM build AS build-demo
RUN --mount=type=secret,id=ca-certificates,target=/etc/ssl/certs/ca-certificates.crt \
    uv sync --inexact --no-install-workspace --package flagpost-consumer --package flagpost-publisher \
        --extra gateway --extra demo \
    && uv export --package flagpost-consumer --package flagpost-publisher --extra gateway --extra demo \
        --quiet --format cyclonedx1.5 --output-file /opt/flagpost/sbom.cdx.json

FROM ${PYTHON_IMAGE} AS run
ARG VERSION
ARG REVISION
ARG SOURCE
LABEL org.opencontainers.image.title="Flagpost" \
      org.opencontainers.image.description="Carries Optimizely Feature Experimentation decisions to Pendo" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.url="${SOURCE}" \
      org.opencontainers.image.licenses="Apache-2.0"
ENV PATH=/opt/flagpost/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1
# Each program serves probes of its own (docs/settings.md): who starts it says which to ask.
HEALTHCHECK NONE
USER 65532:65532
ENTRYPOINT ["flagpost"]
CMD ["consume"]

FROM run AS demo
COPY --from=build-demo /opt/flagpost /opt/flagpost

FROM run
COPY --from=build /opt/flagpost /opt/flagpost
# 8080: the consumer's probes and metrics; 8081: the gateway's requests; 8082: its probes and metrics.
EXPOSE 8080 8081 8082
