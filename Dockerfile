# Holds everything a run needs: code, weights, templates. Nothing is fetched at run time.
# docs/containers.md says how to build and run it. Nothing in here is of one processor's kind: the
# base is an index of many, and pip takes the wheels of the one that is built for.
# Pinned by version. To pin the very bytes, give PYTHON_IMAGE=python@sha256:… of that version.
ARG PYTHON_IMAGE=python:3.11.13-slim-bookworm

FROM ${PYTHON_IMAGE} AS builder
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
# Extra arguments of pip, for instance an index with CPU-only builds of torch.
ARG PIP_ARGS=""
WORKDIR /source
RUN python -m venv /opt/tumsyn
ENV PATH=/opt/tumsyn/bin:$PATH
# The dependencies first: this layer, by far the largest, is reused while they do not change.
COPY setup.cfg constraints.txt ./
RUN python -c "import configparser; c = configparser.ConfigParser(); c.read('setup.cfg'); print(c['options']['install_requires'])" > requirements.txt \
    && pip install ${PIP_ARGS} -c constraints.txt -r requirements.txt
COPY LICENSE README.md pyproject.toml ./
COPY tumsyn_bids ./tumsyn_bids
RUN pip install --no-deps .
# niworkflows wants TemplateFlow's index of names to exist; it comes out of the wheel.
RUN TEMPLATEFLOW_HOME=/opt/templateflow TEMPLATEFLOW_AUTOUPDATE=off \
    python -c "import templateflow.api" \
    && chmod -R a+rX /opt/tumsyn /opt/templateflow

FROM ${PYTHON_IMAGE}
COPY --from=builder /opt/tumsyn /opt/tumsyn
COPY --from=builder /opt/templateflow /opt/templateflow
# Any user id works, with or without a home that can be written to: libraries keep their caches in
# the work folder. The user's own Python packages, which Apptainer would make visible, are kept out.
ENV PATH=/opt/tumsyn/bin:$PATH \
    PYTHONNOUSERSITE=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    TEMPLATEFLOW_HOME=/opt/templateflow \
    TEMPLATEFLOW_AUTOUPDATE=off \
    XDG_CACHE_HOME=/tmp/tumsyn-cache
WORKDIR /tmp
# Fails the build, not the first user, if the weights are missing or cannot be read.
USER 65534:65534
RUN HOME=/nonexistent tumsyn models verify embedded && HOME=/nonexistent tumsyn-bids --version
ARG VERSION=unknown
ARG REVISION=unknown
ARG CREATED=unknown
ARG PYTHON_IMAGE
LABEL org.opencontainers.image.title="tumsyn-bids" \
      org.opencontainers.image.description="BIDS App that synthesizes missing MRI contrasts" \
      org.opencontainers.image.authors="The tumsyn-bids developers" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.base.name="${PYTHON_IMAGE}"
ENTRYPOINT ["tumsyn-bids"]
