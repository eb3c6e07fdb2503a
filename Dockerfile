# The server in one image: hash-locked packages, no root, and /data as the only writable place.
#
#   docker build --tag multi-model-proxy .
#   docker run --read-only --volume mmproxy:/data --publish 127.0.0.1:8000:8000 --env PROXY_API_KEY multi-model-proxy
#
# See docs/deployment.md. A test runs these steps in order, without a container engine.
FROM python:3.11-slim

LABEL org.opencontainers.image.title="multi-model-proxy"
LABEL org.opencontainers.image.description="One OpenAI-compatible endpoint in front of every model, metered and priced."
LABEL org.opencontainers.image.licenses="Apache-2.0"

ENV PYTHONUNBUFFERED=1 PYTHONSAFEPATH=1 PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore

# Packages first: their layer is reused while only our own code changes. Only wheels, so no package runs code during the build.
WORKDIR /app
COPY requirements.lock ./
RUN python -m pip install --no-deps --require-hashes --only-binary :all: -r requirements.lock

COPY pyproject.toml README.md LICENSE routing_rules.yaml pricing.yaml ./
COPY proxy proxy/
RUN python -m pip install --no-deps --no-build-isolation .

# /data holds both configuration files and the database. It is the working directory, so that relative paths lead here too.
RUN mkdir /data && chown 10001:10001 /data && chmod 700 /data
VOLUME /data
WORKDIR /data
USER 10001:10001

# The server is reachable from outside, so it requires a key (PROXY_API_KEY). Without one it says how to create it.
ENV PROXY_HOST=0.0.0.0 PROXY_PORT=8000 PROXY_LOG_FORMAT=json
EXPOSE 8000
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=30s --timeout=5s --start-period=10s --retries=3 \
    CMD ["python", "-I", "-c", "import os, urllib.request as r; r.urlopen('http://127.0.0.1:' + os.environ['PROXY_PORT'] + '/livez', timeout=4)"]
ENTRYPOINT ["proxy"]
CMD ["serve"]
